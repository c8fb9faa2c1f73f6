"""How queries wait for their index: jobs elsewhere, memory, idleness, deletion, breakage."""

from preheat.services.s3vectors.desk import Desk
from preheat.services.s3vectors.service import S3VectorsService
from tests.support.inprocess import InProcess
from tests.unit.test_s3vectors_service import BUCKET, NAMES, found, make_index, put, vector


def world_with(background=None, **options):
    """A world whose search structures are kept with other limits, or worked on by `background`."""

    def build_desk(platform):
        desk = Desk(platform.db, platform.clock, background or platform.background, platform.machine, **options)
        platform.machine.add_loop(desk)
        return S3VectorsService(desk)

    return InProcess(build_desk)


class Held:
    """A background whose jobs run when the test says so."""

    def __init__(self):
        self.jobs = []

    def run(self, work, done):
        self.jobs.append((work, done))

    def release(self):
        work, done = self.jobs.pop(0)
        done(work())


def test_queries_wait_for_the_running_job_and_see_later_writes():
    held = Held()
    world = world_with(held)
    make_index(world)
    put(world, *(vector(f"k{n}", [1, n + 1]) for n in range(400)))
    query = {**NAMES, "topK": 1, "queryVector": {"float32": [1, 0]}}
    first = world.start("s3vectors", "QueryVectors", **query)
    put(world, vector("near", [1, 0]))
    second = world.start("s3vectors", "QueryVectors", **query)
    assert (first, second, len(held.jobs)) == ([], [], 1)
    while held.jobs:
        held.release()
        world.settle()
    assert [one.output["vectors"][0]["key"] for one in (*first, *second)] == ["near", "near"]


def test_an_index_deleted_under_a_waiting_query_is_not_found():
    held = Held()
    world = world_with(held)
    make_index(world)
    put(world, *(vector(f"k{n}", [1, n + 1]) for n in range(400)))
    waiting = world.start("s3vectors", "QueryVectors", **NAMES, topK=1, queryVector={"float32": [1, 0]})
    world("s3vectors", "DeleteIndex", **NAMES)
    assert waiting[0].code == "NotFoundException"
    held.release()
    world.settle()
    assert world.machine.services["s3vectors"].desk.loaded == 0


def test_a_long_job_is_not_dropped_and_does_not_keep_the_machine_awake():
    held = Held()
    world = world_with(held)
    make_index(world)
    put(world, *(vector(f"k{n}", [1, n + 1]) for n in range(400)))
    replies = world.start("s3vectors", "QueryVectors", **NAMES, topK=1, queryVector={"float32": [1, 0]})
    world.advance(950)
    assert not world.machine.has_work()
    while held.jobs:
        held.release()
        world.settle()
    assert replies[0].output["vectors"][0]["key"] == "k0"


def test_memory_pressure_drops_the_one_used_longest_ago():
    world = world_with(memory_bytes=1)
    make_index(world)
    world("s3vectors", "CreateIndex", vectorBucketName=BUCKET, indexName="other", dataType="float32", dimension=2,
          distanceMetric="cosine")  # fmt: skip
    put(world, vector("a", [1, 0]))
    assert found(world, topK=1, queryVector={"float32": [1, 0]}) == ["a"]
    world.clock.advance(1)
    other = {"vectorBucketName": BUCKET, "indexName": "other", "topK": 1, "queryVector": {"float32": [1, 0]}}
    assert world("s3vectors", "QueryVectors", **other)["vectors"] == []
    assert world.machine.services["s3vectors"].desk.loaded == 1
    assert found(world, topK=1, queryVector={"float32": [1, 0]}) == ["a"]


def test_beyond_the_exact_limit_the_graph_answers_and_follows_writes():
    world = world_with(exact_limit=500)
    make_index(world, metric="euclidean")
    for start in range(0, 1_500, 500):
        put(world, *(vector(f"k{n:04}", [n, 0], part=n % 2) for n in range(start, start + 500)))
    near = {"topK": 3, "queryVector": {"float32": [700.2, 0]}}
    assert found(world, **near) == ["k0700", "k0701", "k0699"]
    world("s3vectors", "DeleteVectors", **NAMES, keys=["k0700"])
    put(world, vector("new", [700.3, 0]))
    assert found(world, **near) == ["new", "k0701", "k0699"]
    assert found(world, **near, filter={"part": 0}) == ["k0702", "k0698", "k0704"]


def test_a_job_that_breaks_is_answered_and_forgotten():
    class Breaking(Held):
        def release(self):
            _, done = self.jobs.pop(0)
            done(MemoryError("no room"))

    held = Breaking()
    world = world_with(held)
    make_index(world)
    put(world, *(vector(f"k{n}", [1, n + 1]) for n in range(400)))
    replies = world.start("s3vectors", "QueryVectors", **NAMES, topK=1, queryVector={"float32": [1, 0]})
    held.release()
    world.settle()
    assert (replies[0].code, replies[0].status) == ("InternalFailure", 500)
    assert "no room" in world.defects[0]
    assert world.machine.services["s3vectors"].desk.loaded == 0
