"""The database alone: transactions, savepoints, notes, locks, and what it says when it cannot go on."""

import random
import sqlite3

import pytest

from preheat.store.database import Database
from preheat.store.errors import StateLocked, StateUnreadable, StoreFull

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, size INTEGER)"
INSERT = "INSERT INTO things VALUES (?, ?)"


@pytest.fixture(params=["memory", "file"])
def db(request, tmp_path):
    database = Database(None if request.param == "memory" else tmp_path / "state")
    database.apply_schema("things", SCHEMA)
    yield database
    database.close()


def names(db):
    return [row["name"] for row in db.all("SELECT name FROM things ORDER BY name")]


def test_a_write_outside_a_transaction_is_a_defect(db):
    with pytest.raises(RuntimeError, match="outside"):
        db.run(INSERT, "a", 1)
    with pytest.raises(RuntimeError, match="outside"):
        db.many(INSERT, [("a", 1)])
    assert names(db) == []


def test_one_operation_is_undone_and_its_neighbours_stay(db):
    forgotten = []
    db.on_undo.append(lambda: forgotten.append(names(db)))
    done = []
    db.begin()
    for name, fails in (("a", False), ("b", True), ("c", False)):
        mark = db.mark()
        db.run(INSERT, name, 1)
        db.emit("kind", name.encode(), 0.0)
        db.notify(f"topic-{name}")
        db.after_commit(lambda name=name: done.append(name))
        if fails:
            db.undo(mark)
        else:
            db.keep()
    db.commit()
    assert names(db) == ["a", "c"]
    assert [bytes(row["payload"]) for row in db.all("SELECT payload FROM due ORDER BY id")] == [b"a", b"c"]
    assert db.take_topics() == ["due", "topic-a", "topic-c"]
    for action in db.take_actions():
        action()
    assert done == ["a", "c"] and forgotten == [["a"]]
    assert db.take_topics() == [] and db.take_actions() == []


def test_an_operation_that_only_reads_is_undone_without_telling_anybody(db):
    told = []
    db.on_undo.append(lambda: told.append(1))
    db.begin()
    mark = db.mark()
    names(db)
    db.notify("topic")
    db.undo(mark)
    db.commit()
    assert told == [] and db.take_topics() == []


def test_a_topic_an_earlier_operation_notified_outlives_the_undoing_of_a_later_one(db):
    db.begin()
    db.mark()
    db.notify("both")
    db.keep()
    mark = db.mark()
    db.notify("both")
    db.notify("mine")
    db.undo(mark)
    db.commit()
    assert db.take_topics() == ["both"]


def test_a_rollback_takes_everything_back(db):
    db.begin()
    db.mark()
    db.run(INSERT, "a", 1)
    db.notify("topic")
    db.after_commit(lambda: None)
    db.rollback()
    assert names(db) == [] and db.take_topics() == [] and db.take_actions() == []
    assert not db.in_transaction
    db.begin()
    db.mark()
    db.run(INSERT, "b", 1)
    db.keep()
    db.commit()
    assert names(db) == ["b"]


# -- rows that wait ----------------------------------------------------------------------------------------------------


def test_what_waits_is_there_for_every_read_and_at_the_commit(db):
    db.begin()
    db.mark()
    db.later(INSERT, ("a", 1))
    db.keep()
    db.mark()
    assert db.value("SELECT COUNT(*) FROM things") == 1
    db.later(INSERT, ("b", 2))
    assert db.one("SELECT name FROM things WHERE size = 2")["name"] == "b"
    db.later(INSERT, ("c", 3))
    assert names(db) == ["a", "b", "c"]
    db.later(INSERT, ("d", 4))
    assert db.run("DELETE FROM things WHERE name IN ('a', 'd')") == 2
    db.later(INSERT, ("e", 5))
    assert db.many("UPDATE things SET size = ? WHERE name = ?", [(50, "e"), (30, "c")]) == 2
    db.later(INSERT, ("f", 6))
    db.later("INSERT INTO things (size, name) VALUES (?, ?)", (7, "g"))
    db.keep()
    db.commit()
    rows = [tuple(row) for row in db.all("SELECT name, size FROM things ORDER BY name")]
    assert rows == [("b", 2), ("c", 30), ("e", 50), ("f", 6), ("g", 7)]


@pytest.mark.parametrize("seed", range(40))
def test_what_waits_is_undone_with_its_operation_alone(db, seed):
    """Random writes and reads, some operations undone: what is there is as if each row had been written at once."""
    chance = random.Random(seed)
    told, expected, number = [], [], 0
    db.on_undo.append(lambda: told.append(1))
    for _ in range(5):
        db.begin()
        for _ in range(6):
            mark, mine = db.mark(), []
            for _ in range(chance.randrange(4)):
                number += 1
                name = f"{number:04}"
                kind = chance.choice(["later", "later", "run", "read"])
                if kind == "read":
                    assert names(db) == sorted(expected + mine)
                    continue
                (db.later(INSERT, (name, 1)) if kind == "later" else db.run(INSERT, name, 1))
                mine.append(name)
            if chance.random() < 0.4:
                before = len(told)
                db.undo(mark)
                assert len(told) - before == (1 if mine else 0)
            else:
                db.keep()
                expected += mine
        db.commit()
        assert names(db) == sorted(expected)


def test_a_rollback_drops_what_waits(db):
    db.begin()
    db.mark()
    db.later(INSERT, ("a", 1))
    db.keep()
    db.rollback()
    db.begin()
    db.commit()
    assert names(db) == []
    with pytest.raises(RuntimeError, match="outside"):
        db.later(INSERT, ("a", 1))


@pytest.mark.parametrize("when", ["a read of the next operation", "the commit"])
def test_when_the_disk_refuses_what_waits_nothing_of_the_transaction_stays(tmp_path, when):
    db = Database(tmp_path / "state")
    db.apply_schema("things", SCHEMA)
    pages = db.value("PRAGMA page_count")
    told = []
    db.on_undo.append(lambda: told.append(1))
    db.begin()
    db.mark()
    db.run(INSERT, "before", 1)
    db.keep()
    db.value(f"PRAGMA max_page_count = {pages}")
    db.mark()
    db.later(INSERT, ("x" * 100_000, 1))
    db.keep()
    mark = db.mark()
    with pytest.raises(StoreFull):
        if when == "the commit":
            db.keep()
            db.commit()
        else:
            names(db)
    with pytest.raises(StoreFull):
        db.undo(mark)
    db.rollback()
    assert told and not db.in_transaction and names(db) == []
    db.value("PRAGMA max_page_count = 100000")
    db.begin()
    db.mark()
    db.later(INSERT, ("after", 1))
    db.keep()
    db.commit()
    assert names(db) == ["after"]
    db.close()


def test_the_results_of_statements(db):
    db.begin()
    db.mark()
    assert db.insert(INSERT, "a", 1) == 1
    assert db.many(INSERT, [("b", 2), ("c", 3)]) == 2
    assert db.run("UPDATE things SET size = size + 1 WHERE size > 1") == 2
    assert [row["size"] for row in db.returning("DELETE FROM things WHERE name = 'c' RETURNING size")] == [4]
    db.keep()
    db.commit()
    assert db.value("SELECT size FROM things WHERE name = ?", "b") == 3
    assert db.value("SELECT size FROM things WHERE name = ?", "z") is None
    assert db.one("SELECT size FROM things WHERE name = ?", "z") is None


def test_mistakes_in_sql_stay_what_they_are(db):
    db.begin()
    db.mark()
    db.run(INSERT, "a", 1)
    with pytest.raises(sqlite3.IntegrityError):
        db.run(INSERT, "a", 1)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        db.run("INSERT INTO nowhere VALUES (1)")
    for read in (db.one, db.all, db.value):
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            read("SELECT colour FROM things")
    db.keep()
    db.commit()
    assert names(db) == ["a"]


def test_what_a_dead_process_had_claimed_is_due_again(tmp_path):
    first = Database(tmp_path)
    first.begin()
    first.mark()
    first.emit("kind", b"1", 5.0)
    first.run("UPDATE due SET claimed = 1")
    first.keep()
    first.commit()
    first.close()
    second = Database(tmp_path)
    assert second.value("SELECT count(*) FROM due WHERE claimed = 0") == 1
    second.close()


def test_a_schema_is_applied_twice_without_harm(tmp_path):
    for count in (1, 2):
        db = Database(tmp_path)
        db.apply_schema("things", SCHEMA)
        db.apply_schema("things", SCHEMA)
        db.begin()
        db.mark()
        db.run(INSERT, f"n{count}", count)
        db.keep()
        db.commit()
        assert len(names(db)) == count
        assert db.value("SELECT count(*) FROM schema_versions WHERE name = 'things'") == 1
        db.close()


def test_a_second_database_on_the_same_directory_is_refused_until_the_first_is_closed(tmp_path):
    first = Database(tmp_path)
    with pytest.raises(StateLocked, match=r"process \d+"):
        Database(tmp_path)
    first.close()
    Database(tmp_path).close()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_durability_is_what_was_asked_for(tmp_path, durability):
    db = Database(tmp_path, durability)
    assert db.value("PRAGMA synchronous") == {"process": 0, "power": 2}[durability]
    assert db.value("PRAGMA journal_mode") == "wal"
    db.close()


def test_another_program_that_holds_the_file_is_a_refusal_and_passes(tmp_path):
    db = Database(tmp_path)
    db._execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "preheat.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFull, match="locked"):
        db.begin()
    other.execute("ROLLBACK")
    other.close()
    db.begin()
    db.commit()
    db.close()


def grow(db, rows):
    db.begin()
    for number in range(rows):
        db.mark()
        db.run(INSERT, f"{number} " + "x" * 2_000, number)
        db.keep()
    db.commit()


def test_a_file_that_may_not_grow_refuses_and_leaves_nothing(tmp_path):
    db = Database(tmp_path)
    db.apply_schema("things", SCHEMA)
    pages = db.value("PRAGMA page_count")
    db._execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StoreFull, match="full"):
        grow(db, 100)
    db.rollback()
    assert names(db) == []
    db._execute("PRAGMA max_page_count = 100000")
    grow(db, 100)
    assert len(names(db)) == 100
    db.close()


def test_a_transaction_sqlite_gave_up_is_noticed_when_an_operation_is_undone(db):
    db.begin()
    mark = db.mark()
    db.run(INSERT, "a", 1)
    db._execute("ROLLBACK")
    with pytest.raises(StoreFull):
        db.undo(mark)
    db.rollback()
    assert names(db) == []


def test_a_page_damaged_while_it_runs_is_told_from_a_mistake(tmp_path):
    db = Database(tmp_path)
    db.apply_schema("things", SCHEMA)
    grow(db, 200)
    root = db.value("SELECT rootpage FROM sqlite_master WHERE name = 'things'")
    size = db.value("PRAGMA page_size")
    db.close()
    with open(tmp_path / "preheat.db", "r+b") as file:
        file.seek((root - 1) * size)
        file.write(random.Random(1).randbytes(size))
    db = Database(tmp_path)
    with pytest.raises(StateUnreadable, match="damaged"):
        db.all("SELECT size FROM things")
    db.close()


def test_a_damaged_schema_is_told_when_a_service_is_added(tmp_path):
    db = Database(tmp_path)
    with pytest.raises(StateUnreadable, match="cannot be read"):
        db.apply_schema("broken", "CREATE TABLE (")
    db.close()


def test_one_commit_is_seen_whole_by_another_reader(tmp_path):
    db = Database(tmp_path)
    db.apply_schema("things", SCHEMA)
    other = sqlite3.connect(tmp_path / "preheat.db")
    db.begin()
    for name in "abc":
        db.mark()
        db.run(INSERT, name, 1)
        db.keep()
        assert other.execute("SELECT count(*) FROM things").fetchone() == (0,)
    db.commit()
    assert other.execute("SELECT count(*) FROM things").fetchone() == (3,)
    other.close()
    db.close()


def test_what_is_due_is_found_by_kind_however_much_of_other_kinds_waits():
    db = Database(None)
    claim = "SELECT id FROM due WHERE claimed = 0 AND kind = 'k' AND due_at <= 5 ORDER BY due_at, id LIMIT 9"
    for sql in (claim, "SELECT min(due_at) FROM due WHERE claimed = 0 AND kind = 'k'"):
        plan = [row["detail"] for row in db.all("EXPLAIN QUERY PLAN " + sql)]
        assert len(plan) == 1 and "due_by_kind (kind=?" in plan[0], plan
    db.close()


# -- transactions of their own ---------------------------------------------------------------------------------------


def test_a_transaction_of_its_own_is_kept_or_taken_back(db):
    with db.transaction():
        db.run(INSERT, "a", 1)
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.run(INSERT, "b", 1)
        db.later(INSERT, ("c", 1))
        raise ZeroDivisionError
    assert names(db) == ["a"] and not db.in_transaction
    with db.transaction():
        db.later(INSERT, ("d", 1))
    assert names(db) == ["a", "d"]
