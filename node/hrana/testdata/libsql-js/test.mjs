// Runs the stock @libsql/client against the URL given as argument and fails
// with a message at the first thing that is not as with a libSQL server.
import assert from "node:assert/strict";
import { createClient } from "@libsql/client/http";

const url = process.argv[2];
// What the server does with a request while a transaction holds the facet:
// refuse it ("busy") or let it wait, as a facetd node does.
const busy = process.argv[3] === "busy";
let passed = 0;

async function check(name, f) {
    try {
        await f();
        passed++;
        console.log("ok   " + name);
    } catch (e) {
        console.error("FAIL " + name + "\n" + (e?.stack ?? e));
        process.exit(1);
    }
}

async function rejects(promise, code, pattern) {
    const e = await promise.then(() => undefined, (e) => e);
    assert.ok(e, "no error where " + code + " is due");
    assert.equal(e.code, code, e.message);
    if (pattern) {
        assert.match(e.message, pattern);
    }
    return e;
}

const c = createClient({ url });

await check("create and insert", async () => {
    await c.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n REAL, b BLOB)");
    const r = await c.execute({ sql: "INSERT INTO t (name, n) VALUES (?, ?)", args: ["one", 1.5] });
    assert.equal(r.rowsAffected, 1);
    assert.equal(r.lastInsertRowid, 1n);
});

await check("positional arguments", async () => {
    const r = await c.execute("SELECT ?1 + ?2 AS sum, ?2 AS two", [1, 2]);
    assert.deepEqual(r.columns, ["sum", "two"]);
    assert.equal(r.rows[0].sum, 3);
    assert.equal(r.rows[0][1], 2);
});

await check("named arguments with every sigil", async () => {
    const r = await c.execute({ sql: "SELECT :a || @b || $c AS abc", args: { a: "x", b: "y", c: "z" } });
    assert.equal(r.rows[0].abc, "xyz");
    const s = await c.execute({ sql: "SELECT :a AS a", args: { ":a": null } });
    assert.equal(s.rows[0].a, null);
});

await check("columns and declared types", async () => {
    const r = await c.execute("SELECT id, name, n, b, 1 AS one FROM t");
    assert.deepEqual(r.columns, ["id", "name", "n", "b", "one"]);
    assert.deepEqual(r.columnTypes, ["INTEGER", "TEXT", "REAL", "BLOB", ""]);
});

await check("text", async () => {
    for (const text of ["", "'\"\\\u0000\u2028", "žluťoučký kůň 🐎", "a".repeat(100_000)]) {
        const r = await c.execute({ sql: "SELECT ? AS t", args: [text] });
        assert.equal(r.rows[0].t, text);
    }
});

await check("blobs", async () => {
    for (const n of [0, 1, 2, 3, 4, 255, 100_000]) {
        const blob = new Uint8Array(n).map((_, i) => (i * 7) & 255);
        const r = await c.execute({ sql: "SELECT ? AS b, typeof(?1) AS t", args: [blob] });
        assert.ok(r.rows[0].b instanceof ArrayBuffer);
        assert.deepEqual(new Uint8Array(r.rows[0].b), blob);
        assert.equal(r.rows[0].t, "blob");
    }
});

await check("floats, booleans and dates", async () => {
    const r = await c.execute({
        sql: "SELECT ? AS f, typeof(?1) AS tf, ? AS b, ? AS d, 9e999 AS inf, -9e999 AS ninf, 2.0 AS two, typeof(2.0) AS t2",
        args: [0.1, true, new Date(1234567890123)],
    });
    const row = r.rows[0];
    assert.equal(row.f, 0.1);
    assert.equal(row.tf, "real");
    assert.equal(row.b, 1);
    assert.equal(row.d, 1234567890123);
    assert.equal(row.inf, Infinity);
    assert.equal(row.ninf, -Infinity);
    assert.equal(row.two, 2);
    assert.equal(row.t2, "real");
});

await check("bigint", async () => {
    const big = createClient({ url, intMode: "bigint" });
    const max = 9223372036854775807n;
    for (const n of [max, -max - 1n, 9007199254740993n]) {
        const r = await big.execute({ sql: "SELECT ? AS n, typeof(?1) AS t", args: [n] });
        assert.equal(r.rows[0].n, n);
        assert.equal(r.rows[0].t, "integer");
    }
    const text = createClient({ url, intMode: "string" });
    assert.equal((await text.execute("SELECT 9007199254740993 AS n")).rows[0].n, "9007199254740993");
    await assert.rejects(c.execute("SELECT 9007199254740993 AS n"), RangeError);
    big.close();
    text.close();
});

await check("error codes", async () => {
    await rejects(c.execute("INSERT INTO t (id) VALUES (1)"), "SQLITE_CONSTRAINT_PRIMARYKEY", /UNIQUE constraint failed: t\.id/);
    await rejects(c.execute("INSERT INTO t (name) VALUES ('one')"), "SQLITE_CONSTRAINT_UNIQUE");
    await c.execute("CREATE TABLE strict (a INTEGER NOT NULL, CHECK (a > 0)) STRICT");
    await rejects(c.execute("INSERT INTO strict VALUES (NULL)"), "SQLITE_CONSTRAINT_NOTNULL");
    await rejects(c.execute("INSERT INTO strict VALUES (0)"), "SQLITE_CONSTRAINT_CHECK");
    await rejects(c.execute("SELEC 1"), "SQLITE_ERROR", /syntax error/);
    await rejects(c.execute("SELECT * FROM nowhere"), "SQLITE_ERROR", /no such table: nowhere/);
});

await check("batch, write", async () => {
    const rs = await c.batch([
        "CREATE TABLE b (a)",
        { sql: "INSERT INTO b VALUES (?)", args: [1] },
        ["INSERT INTO b VALUES (:v)", { v: 2 }],
        "SELECT count(*) AS n FROM b",
    ], "write");
    assert.equal(rs.length, 4);
    assert.equal(rs[1].rowsAffected, 1);
    assert.equal(rs[3].rows[0].n, 2);
});

await check("batch, all or nothing", async () => {
    const e = await rejects(c.batch([
        "INSERT INTO b VALUES (3)",
        "INSERT INTO t (id) VALUES (1)",
        "INSERT INTO b VALUES (4)",
    ], "write"), "SQLITE_CONSTRAINT_PRIMARYKEY");
    assert.equal(e.statementIndex, 1);
    assert.equal((await c.execute("SELECT count(*) AS n FROM b")).rows[0].n, 2);
});

await check("batch, read and deferred", async () => {
    const rs = await c.batch(["SELECT 1 AS a", "SELECT count(*) AS n FROM b"], "read");
    assert.equal(rs[1].rows[0].n, 2);
    await rejects(c.batch(["DELETE FROM b"], "read"), "SQLITE_READONLY");
    await c.batch(["INSERT INTO b VALUES (3)"], "deferred");
    assert.equal((await c.execute("SELECT count(*) AS n FROM b")).rows[0].n, 3);
});

await check("batch that repeats a statement", async () => {
    const stmts = Array.from({ length: 200 }, (_, i) => ({ sql: "INSERT INTO b VALUES (?)", args: [i] }));
    const rs = await c.batch(stmts, "write");
    assert.equal(rs.length, 200);
    await c.execute("DELETE FROM b WHERE rowid > 3");
});

await check("transaction, commit", async () => {
    const tx = await c.transaction("write");
    const r = await tx.execute({ sql: "INSERT INTO b VALUES (?)", args: [10] });
    assert.equal(r.rowsAffected, 1);
    assert.equal((await tx.execute("SELECT count(*) AS n FROM b")).rows[0].n, 4);
    await tx.commit();
    assert.ok(tx.closed);
    assert.equal((await c.execute("SELECT count(*) AS n FROM b")).rows[0].n, 4);
});

await check("transaction, rollback", async () => {
    const tx = await c.transaction("write");
    await tx.execute("DELETE FROM b");
    await tx.rollback();
    assert.equal((await c.execute("SELECT count(*) AS n FROM b")).rows[0].n, 4);
});

await check("transaction, close without commit", async () => {
    const tx = await c.transaction("write");
    await tx.execute("DELETE FROM b");
    tx.close();
    for (let i = 0; ; i++) {
        // close() is sent in the background
        const r = await c.execute("SELECT count(*) AS n FROM b").catch((e) => e);
        if (r.rows) {
            assert.equal(r.rows[0].n, 4);
            break;
        }
        assert.equal(r.code, "SQLITE_BUSY");
        assert.ok(i < 1000, "the transaction stays open");
    }
});

await check("transaction goes on after an error", async () => {
    const tx = await c.transaction("write");
    await tx.execute("INSERT INTO b VALUES (11)");
    await rejects(tx.execute("INSERT INTO t (id) VALUES (1)"), "SQLITE_CONSTRAINT_PRIMARYKEY");
    await tx.batch(["INSERT INTO b VALUES (12)", "INSERT INTO b VALUES (13)"]);
    await tx.executeMultiple("INSERT INTO b VALUES (14); INSERT INTO b VALUES (15);");
    await tx.commit();
    assert.equal((await c.execute("SELECT count(*) AS n FROM b")).rows[0].n, 9);
});

await check("transaction, read", async () => {
    const tx = await c.transaction("read");
    assert.equal((await tx.execute("SELECT count(*) AS n FROM b")).rows[0].n, 9);
    await rejects(tx.execute("DELETE FROM b"), "SQLITE_READONLY");
    assert.equal((await tx.execute("SELECT count(*) AS n FROM b")).rows[0].n, 9);
    await tx.commit();
    await c.execute("INSERT INTO b VALUES (16)");
});

await check("a facet held by a transaction", async () => {
    const tx = await c.transaction("write");
    await tx.execute("SELECT 1");
    if (busy) {
        await rejects(c.execute("SELECT 1"), "SQLITE_BUSY");
        await tx.rollback();
        return;
    }
    let over = false;
    const waits = c.execute("SELECT 1").then(() => over);
    await tx.execute("SELECT 2");
    over = true;
    await tx.rollback();
    assert.ok(await waits, "a request ran while a transaction held the facet");
});

await check("executeMultiple", async () => {
    await c.executeMultiple(`
        CREATE TABLE m (a); -- a comment; with a semicolon
        INSERT INTO m VALUES ('x;y');
        CREATE TRIGGER tr AFTER INSERT ON m BEGIN UPDATE m SET a = a || '!' WHERE rowid = new.rowid; END;
        INSERT INTO m VALUES ('z');
    `);
    const r = await c.execute("SELECT group_concat(a) AS a FROM m");
    assert.equal(r.rows[0].a, "x;y,z!");
    await rejects(c.executeMultiple("INSERT INTO m VALUES (1); SELEC"), "SQLITE_ERROR");
});

await check("migrate", async () => {
    await c.execute("PRAGMA foreign_keys=on");
    await c.batch(["CREATE TABLE parent (id INTEGER PRIMARY KEY)", "CREATE TABLE child (p REFERENCES parent (id))",
        "INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (1)"], "write");
    await c.migrate(["CREATE TABLE parent2 (id INTEGER PRIMARY KEY, x)", "INSERT INTO parent2 (id) SELECT id FROM parent",
        "DROP TABLE parent", "ALTER TABLE parent2 RENAME TO parent"]);
    assert.equal((await c.execute("SELECT count(*) AS n FROM parent")).rows[0].n, 1);
});

await check("many at once", async () => {
    const rs = await Promise.all(Array.from({ length: 100 }, (_, i) => c.execute({ sql: "SELECT ? AS i", args: [i] })));
    rs.forEach((r, i) => assert.equal(r.rows[0].i, i));
});

await check("URL without the last slash and without the facet", async () => {
    // Without the slash the client replaces the facet by the endpoint.
    for (const wrong of [url.replace(/[^/]+\/$/, ""), url.replace(/\/$/, "")]) {
        const bad = createClient({ url: wrong });
        const e = await rejects(bad.execute("SELECT 1"), "NO_FACET_IN_URL", /FACET/);
        assert.match(e.message, /slash/);
        bad.close();
    }
    const twice = createClient({ url: url.replace(/\/v1\//, "//v1//") });
    assert.equal((await twice.execute("SELECT 1 AS a")).rows[0].a, 1);
    twice.close();
});

await check("closed client", async () => {
    c.close();
    await assert.rejects(c.execute("SELECT 1"));
});

console.log(`${passed} passed`);
