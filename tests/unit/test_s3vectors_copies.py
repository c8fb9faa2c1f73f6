"""Search structures in files: a restart answers as before, and what is wrong with a file never shows in an answer."""

import random
import resource
import shutil
from contextlib import contextmanager

import pytest

from preheat.kernel.stream import InlineBackground
from preheat.services.s3vectors.copies import FOLDER, Copies
from preheat.services.s3vectors.desk import Desk
from preheat.services.s3vectors.service import S3VectorsService
from tests.support.inprocess import InProcess
from tests.unit.test_s3vectors_service import BUCKET, NAMES, make_index, put, vector

WORDS = ("heron", "wading", "river", "train", "night", "stone", "lamp", "garden", "winter", "copper")
TEXTS = {
    "nonFilterableMetadataKeys": ["body"],
    "textSearchConfigurations": [{"metadataKey": "t", "language": "en"}, {"metadataKey": "body"}],
}
DIMENSION = 8
LEAST = 40
QUIET_S = 4.0


class Weak(InlineBackground):
    """The disk refuses files beyond `limit` bytes while it works; None: as many as there is room for. Jobs wait in
    `held` while that is a list."""

    def __init__(self):
        self.limit = None
        self.held = None

    def release(self):
        jobs, self.held = self.held, None
        for work, done in jobs:
            self.run(work, done)

    def one(self):
        """The first of the jobs that wait."""
        work, done = self.held.pop(0)
        super().run(work, done)

    def run(self, work, done):
        if self.held is not None:
            self.held.append((work, done))
            return

        def limited():
            with file_limit(self.limit):
                return work()

        super().run(limited, done)


@contextmanager
def file_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Restarted:
    """S3 Vectors on a directory; `restart` is a new process on it. A graph is built beyond `exact_limit` vectors."""

    def __init__(self, directory, exact_limit=100):
        self.directory, self.exact_limit = directory, exact_limit
        self.starts, self.said, self.weak = 0, [], Weak()
        self.world = None
        self.restart()

    def restart(self):
        if self.world is not None:
            self.world.db.close()
        self.starts += 1

        def build(platform):
            db, machine = platform.db, platform.machine
            copies = Copies(db, self.weak, machine, db.directory / FOLDER, LEAST, self.said.append)
            desk = self.desk = Desk(
                db, platform.clock, self.weak, machine, exact_limit=self.exact_limit, copies=copies
            )
            machine.add_loop(desk)
            return S3VectorsService(desk)

        self.world = InProcess(build, directory=self.directory, seed=self.starts)

    def rest(self):
        """Let a copy be made."""
        self.world.advance(QUIET_S)

    def files(self, ending=""):
        return sorted((self.directory / FOLDER).glob(f"*/*{ending}"))

    def query(self, **params):
        wanted = {"topK": 30, "returnDistance": True, "returnMetadata": True, "returnScores": True}
        return self.world("s3vectors", "QueryVectors", **NAMES, **wanted, **params)["vectors"]


@pytest.fixture
def restarted(tmp_path):
    made = Restarted(tmp_path)
    yield made
    made.world.db.close()


def a_vector(chance, key):
    said = " ".join(chance.choices(WORDS, k=6))
    tags = chance.choices(WORDS, k=2)
    metadata = {"t": said, "body": f"{said[::-1]} Ünïcode", "n": chance.randrange(50), "tags": tags}
    if chance.random() < 0.3:
        metadata |= {"flag": chance.random() < 0.5, "big": 2**70, "share": chance.random()}
    return vector(key, [chance.uniform(-1, 1) for _ in range(DIMENSION)], **metadata)


def fill(world, chance, count, first=0):
    for at in range(first, first + count, 100):
        put(world, *(a_vector(chance, f"k {n}\n") for n in range(at, min(at + 100, first + count))))


def questions(chance):
    dense = {"queryVector": {"float32": [chance.uniform(-1, 1) for _ in range(DIMENSION)]}}
    words = {"queryTexts": [{"text": " ".join(chance.choices(WORDS, k=2)), "metadataKey": "t"}]}
    both = {"queryTexts": [*words["queryTexts"], {"text": "RETNIW", "metadataKey": "body"}]}
    yield from (dense, words, dense | both)
    for condition in (
        {"n": {"$lt": 20}}, {"tags": "heron"}, {"flag": {"$exists": True}}, {"big": {"$gt": 5}},
        {"share": {"$gt": 0.4}}, {"flag": {"$ne": True}}, {"t": {"$startsWith": "w"}}, {"n": {"$in": [3, 4.0, "x"]}},
    ):  # fmt: skip
        yield dense | {"filter": condition}
        yield words | {"filter": condition}


def answers(restarted, seed):
    """Every answer by key: equal scores may come in another order when a vector was written anew."""
    found = []
    for question in questions(random.Random(seed)):
        hits = restarted.query(**question)
        assert len({one["key"] for one in hits}) == len(hits)
        found.append({one.pop("key"): told(one) for one in hits})
    return found


def told(hit):
    scores = hit.get("scores", {})
    numbers = [hit.get("distance"), *(one["score"] for one in scores.get("bm25Scores", ()))]
    return numbers, hit["metadata"]


def like(found):
    """The same up to the last digits: products are summed in another order where rows lie elsewhere."""
    return [
        {key: ([near(one) for one in numbers], metadata) for key, (numbers, metadata) in one.items()} for one in found
    ]


def near(number):
    return None if number is None else pytest.approx(number, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("exact_limit", [100, 100_000])
def test_answers_are_the_same_after_restarts(tmp_path, metric, exact_limit):
    restarted, chance = Restarted(tmp_path, exact_limit), random.Random(f"{metric} {exact_limit}")
    make_index(restarted.world, DIMENSION, metric, metadataConfiguration=TEXTS)
    fill(restarted.world, chance, 300)
    for turn in range(4):
        restarted.query(**next(questions(chance)))
        if turn != 2:
            restarted.rest()
            assert len(restarted.files(".json")) == 1
            assert bool(restarted.files(".graph")) == (exact_limit == 100)
        change(restarted.world, chance, turn)
        before = answers(restarted, turn)
        restarted.restart()
        assert answers(restarted, turn) == like(before)
        assert restarted.desk.restored == 1
    assert not restarted.said
    restarted.world.db.close()


def change(world, chance, turn):
    """Some put anew, some new, some gone, some gone and back."""
    fill(world, chance, 30, 1_000 + 30 * turn)
    put(world, *(a_vector(chance, f"k {n}\n") for n in chance.sample(range(300), 15)))
    gone = [f"k {n}\n" for n in chance.sample(range(300), 20)]
    world("s3vectors", "DeleteVectors", **NAMES, keys=[*gone, "never there"])
    put(world, *(a_vector(chance, key) for key in gone[:4]))


def test_queries_wait_while_the_copy_is_read_and_see_what_is_written_meanwhile(restarted):
    saved(restarted)
    restarted.restart()
    world, query = restarted.world, {**NAMES, "topK": 2, "queryVector": {"float32": [1.0] * DIMENSION}}
    restarted.weak.held = []
    waiting = world.start("s3vectors", "QueryVectors", **query)
    put(world, vector("late", [1.0] * DIMENSION), vector("k 1\n", [1.0] * DIMENSION))
    world("s3vectors", "DeleteVectors", **NAMES, keys=["k 2\n"])
    assert world("s3vectors", "GetVectors", **NAMES, keys=["k 1\n", "k 2\n"])["vectors"] == [{"key": "k 1\n"}]
    assert waiting == [] and len(restarted.weak.held) == 1
    restarted.weak.release()
    world.settle()
    assert {one["key"] for one in waiting[0].output["vectors"]} == {"late", "k 1\n"}
    assert "k 2\n" not in {one["key"] for one in restarted.query(queryVector={"float32": [1.0] * DIMENSION})}
    assert restarted.desk.restored == 1


def test_an_index_deleted_while_its_copy_is_read_is_gone(restarted):
    saved(restarted)
    restarted.restart()
    restarted.weak.held = []
    query = {**NAMES, "topK": 1, "queryVector": {"float32": [1.0] * DIMENSION}}
    waiting = restarted.world.start("s3vectors", "QueryVectors", **query)
    restarted.world("s3vectors", "DeleteIndex", **NAMES)
    assert waiting[0].code == "NotFoundException"
    restarted.weak.release()


@pytest.mark.parametrize("captured", [False, True])
def test_an_index_deleted_while_its_copy_is_made_leaves_no_file(restarted, captured):
    make_index(restarted.world, DIMENSION)
    fill(restarted.world, random.Random(1), 100)
    restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    restarted.weak.held = []
    restarted.rest()
    if captured:
        restarted.weak.one()
    assert len(restarted.weak.held) == 1
    restarted.world("s3vectors", "DeleteIndex", **NAMES)
    restarted.weak.release()
    restarted.world.settle()
    assert restarted.files() == [] and not restarted.said


@pytest.mark.parametrize("captured", [False, True])
def test_writes_and_queries_go_on_while_a_copy_is_made(restarted, captured):
    make_index(restarted.world, DIMENSION, metadataConfiguration=TEXTS)
    fill(restarted.world, random.Random(1), 300)
    restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    restarted.weak.held = []
    restarted.rest()
    if captured:
        restarted.weak.one()
    change(restarted.world, random.Random(2), 0)
    restarted.weak.release()
    before = answers(restarted, 1)
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 1


def test_a_restored_index_is_read_from_its_copy_alone(restarted):
    saved(restarted)
    database = restarted.world.db
    database.begin()
    database.run("UPDATE s3vectors_vectors SET vector = zeroblob(32)")
    database.commit()
    restarted.restart()
    values = restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    assert restarted.desk.restored == 1 and len({round(one["distance"], 6) for one in values}) > 20


def saved(restarted, count=300):
    """An index with a copy; its answers."""
    make_index(restarted.world, DIMENSION, metadataConfiguration=TEXTS)
    fill(restarted.world, random.Random(7), count)
    found = answers(restarted, 1)
    restarted.rest()
    assert len(restarted.files(".json")) == 1
    return found


@pytest.mark.parametrize("ending", [".json", ".parts", ".graph", ".rows"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_damaged_copy_is_built_anew(restarted, ending, harm):
    before = saved(restarted)
    (path,) = restarted.files(ending)
    restarted.world.db.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"flip": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}
    path.unlink() if harm == "gone" else path.write_bytes(changed[harm])
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 0 and len(restarted.said) == 1, restarted.said
    restarted.rest()
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 1 and len(restarted.said) == 1


def test_the_files_of_another_state_are_not_read(tmp_path):
    mine, other = Restarted(tmp_path / "mine"), Restarted(tmp_path / "other")
    other.starts = 50
    other.restart()
    before = saved(mine)
    make_index(other.world, DIMENSION, metadataConfiguration=TEXTS)
    fill(other.world, random.Random(8), 300)
    other.query(queryVector={"float32": [1.0] * DIMENSION})
    other.rest()
    mine.world.db.close()
    theirs, ours = other.files(".json")[0], mine.files(".json")[0]
    shutil.rmtree(ours.parent)
    shutil.copytree(theirs.parent, ours.parent)
    shutil.copy(theirs, ours)
    mine.restart()
    assert answers(mine, 1) == like(before)
    assert mine.desk.restored == 0 and len(mine.said) == 1
    other.world.db.close()
    mine.world.db.close()


def test_another_configuration_is_not_answered_from_the_old_copy(restarted):
    saved(restarted)
    gone = {"textSearchConfigurations": [{"metadataKey": "body"}]}
    restarted.world("s3vectors", "UpdateMetadataConfiguration", **NAMES, delete=gone)
    assert restarted.files() == []
    restarted.restart()
    assert restarted.query(queryTexts=[{"text": "heron", "metadataKey": "t"}])
    assert restarted.desk.restored == 0


def test_a_full_disk_leaves_the_copy_before_and_takes_nothing(restarted):
    saved(restarted)
    kept = [(path, path.stat().st_size) for path in restarted.files()]
    fill(restarted.world, random.Random(9), 100, 500)
    before = answers(restarted, 1)
    restarted.weak.limit = 12_000
    restarted.rest()
    assert len(restarted.said) == 1 and "File too large" in restarted.said[0]
    assert [(path, path.stat().st_size) for path in restarted.files()] == kept
    assert answers(restarted, 1) == like(before)
    restarted.weak.limit = None
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 1


def test_a_copy_that_the_database_did_not_hear_of_does_not_count(restarted):
    """Killed after the files were written, before the commit."""
    saved(restarted)
    state = restarted.directory
    old = shutil.copytree(state, state.parent / "old")
    fill(restarted.world, random.Random(9), 100, 500)
    before = answers(restarted, 1)
    database = restarted.world.db
    told = tuple(database.one("SELECT token, seq, vectors, logged FROM s3vectors_copies"))
    noted = [tuple(row) for row in database.all("SELECT seq, index_id, key FROM s3vectors_changes")]
    restarted.rest()
    assert restarted.files(".json") != [state / path.relative_to(old) for path in (old / FOLDER).glob("*/*.json")]
    database.begin()
    database.run("UPDATE s3vectors_copies SET token = ?, seq = ?, vectors = ?, logged = ?", *told)
    database.many("INSERT OR REPLACE INTO s3vectors_changes VALUES (?, ?, ?)", noted)
    database.commit()
    for path in (old / FOLDER).glob("*/*"):
        if path.suffix != ".rows":
            shutil.copy(path, state / path.relative_to(old))
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 1 and not restarted.said


def test_files_go_with_their_index(restarted):
    saved(restarted)
    restarted.world("s3vectors", "DeleteIndex", **NAMES)
    restarted.world.advance(1)
    assert list((restarted.directory / FOLDER).iterdir()) == []
    for table in ("copies", "changes", "vectors"):
        assert restarted.world.db.value(f"SELECT count(*) FROM s3vectors_{table}") == 0
    restarted.world("s3vectors", "DeleteVectorBucket", vectorBucketName=BUCKET)


def test_what_a_kill_left_of_a_deleted_index_is_removed_at_the_next_start(restarted):
    (restarted.directory / FOLDER / "77").mkdir(parents=True)
    (restarted.directory / FOLDER / "77" / "x.rows").write_bytes(b"x")
    restarted.restart()
    restarted.world.advance(1)
    assert list((restarted.directory / FOLDER).iterdir()) == []


def test_a_copy_too_far_behind_is_not_followed(restarted):
    saved(restarted)
    fill(restarted.world, random.Random(9), 200, 500)
    before = answers(restarted, 1)
    restarted.restart()
    assert answers(restarted, 1) == like(before)
    assert restarted.desk.restored == 0 and not restarted.said


def test_a_worn_copy_is_replaced(restarted):
    """Written over so often that most of its slots are cleared: the structures are made anew, and so is the copy."""
    make_index(restarted.world, DIMENSION, metadataConfiguration=TEXTS)
    fill(restarted.world, random.Random(1), 600)
    restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    for turn in range(3):
        fill(restarted.world, random.Random(turn), 600)
        restarted.query(queryVector={"float32": [1.0] * DIMENSION})
        restarted.rest()
    before = answers(restarted, 1)
    restarted.restart()
    assert answers(restarted, 1) == like(before)


@pytest.mark.parametrize("first", [True, False])
def test_a_stop_writes_what_is_wanted(restarted, first):
    if first:
        make_index(restarted.world, DIMENSION, metadataConfiguration=TEXTS)
        fill(restarted.world, random.Random(1), 300)
    else:
        saved(restarted)
    restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    change(restarted.world, random.Random(2), 0)
    before, old = answers(restarted, 1), restarted.files(".json")
    put(restarted.world, vector("last", [9.0] * DIMENSION, t="heron"))
    restarted.desk.stop()
    assert set(restarted.files(".json")) > set(old)
    assert restarted.world.db.value("SELECT logged FROM s3vectors_copies") == 0
    restarted.restart()
    (found,) = restarted.query(queryVector={"float32": [9.0] * DIMENSION}, filter={"t": "heron"})
    assert (found["key"], restarted.desk.restored) == ("last", 1)
    restarted.world("s3vectors", "DeleteVectors", **NAMES, keys=["last"])
    found = answers(restarted, 1)
    assert [set(one) for one in found] == [set(one) for one in before] and not restarted.said


def test_a_stop_on_a_full_disk_says_so(restarted):
    make_index(restarted.world, DIMENSION)
    fill(restarted.world, random.Random(1), 300)
    before = restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    with file_limit(4_000):
        restarted.desk.stop()
    assert len(restarted.said) == 1
    assert [path for path in restarted.files() if path.suffix != ".rows"] == []
    restarted.restart()
    assert restarted.query(queryVector={"float32": [1.0] * DIMENSION}) == before
    assert restarted.desk.restored == 0


def test_few_changes_write_nothing(restarted):
    saved(restarted)
    (before,) = restarted.files(".json")
    put(restarted.world, a_vector(random.Random(3), "late"))
    restarted.query(queryVector={"float32": [1.0] * DIMENSION})
    restarted.rest()
    assert restarted.files(".json") == [before]


def test_a_state_in_memory_writes_no_files(tmp_path, monkeypatch):
    from preheat.services.s3vectors.service import build

    monkeypatch.chdir(tmp_path)
    world = InProcess(build)
    make_index(world, DIMENSION)
    fill(world, random.Random(1), 1_200)
    world("s3vectors", "QueryVectors", **NAMES, topK=1, queryVector={"float32": [1.0] * DIMENSION})
    world.advance(QUIET_S)
    assert list(tmp_path.iterdir()) == []
