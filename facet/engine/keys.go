package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/sqlite"
)

// Requests with an idempotency key take effect once (rule R45). In the same
// transaction as its effect, a row is written:
//
//	client, n   the key
//	hash        SHA-256 of what was asked
//	at          when, in Unix seconds
//	result      the answer, or its counts only when it is longer than maxStoredResult
//
// A client counts n up, and may have at most keyWindow requests under way. So a
// key that lies keyWindow or more below the client's highest is expired: its row
// is gone, and the request is refused, never run. The rows of a client that was
// silent for keyAge are removed whole; a client must not retry for that long.
//
// The table is made by the first keyed request that writes. Its name is reserved,
// so tenants' SQL can neither read nor change it.
const (
	keysTable  = reserved + "_keys"
	sqlKeys    = "CREATE TABLE " + keysTable + "(client BLOB NOT NULL, n INTEGER NOT NULL, hash BLOB NOT NULL, at INTEGER NOT NULL, result BLOB NOT NULL, PRIMARY KEY(client, n)) WITHOUT ROWID"
	sqlHasKeys = "SELECT count(*) FROM main.sqlite_schema WHERE type='table' AND name='" + keysTable + "'"
	sqlFind    = "SELECT hash, result FROM main." + keysTable + " WHERE client=?1 AND n=?2"
	sqlHighest = "SELECT max(n) FROM main." + keysTable + " WHERE client=?1"
	sqlStore   = "INSERT INTO main." + keysTable + " VALUES(?1,?2,?3,?4,?5)"
	sqlPrune   = "DELETE FROM main." + keysTable + " WHERE client=?1 AND n<=?2"
	sqlNext    = "SELECT min(client) FROM main." + keysTable + " WHERE client>?1"
	sqlNewest  = "SELECT max(at) FROM main." + keysTable + " WHERE client=?1"
	sqlForget  = "DELETE FROM main." + keysTable + " WHERE client=?1"
)

// keyTable is what a connection knows of the table, and its prepared statements.
type keyTable struct {
	exists answer

	begin, commit                *sqlite.Stmt
	find, highest, store, prune  *sqlite.Stmt
	nextClient, newest, dropKeys *sqlite.Stmt

	sincePrune int
	cursor     []byte // the last client looked at
}

// keyed runs a request with a key.
func (r *run) keyed() error {
	db := r.db
	r.inside = true
	hash := requestHash(r.req)
	if db.keys.exists == unknownYet {
		n, err := db.queryInt(sqlHasKeys)
		if err != nil {
			return db.fail(err, 0)
		}
		db.keys.exists = no
		if n > 0 {
			db.keys.exists = yes
		}
	}
	if db.keys.exists == yes {
		found, err := r.answered(hash)
		if found || err != nil {
			return err
		}
	}
	if err := r.control(sqlBegin); err != nil {
		return err
	}
	r.own = true
	err := r.steps(true)
	if err == nil && db.wrote && !broken.Is(broken.NoDedupe) {
		err = r.remember(hash)
	}
	if err == nil {
		err = r.control(sqlCommit)
	}
	if err != nil && db.broken == nil && !db.conn.AutoCommit() {
		db.rollback()
		db.keys.exists = unknownYet
	}
	return err
}

// answered gives the stored answer to a request that took effect before.
func (r *run) answered(hash [sha256.Size]byte) (found bool, err error) {
	db := r.db
	k := &r.req.Key
	var conflict error
	err = db.query(&db.keys.find, sqlFind, func(s *sqlite.Stmt) error {
		return bindKey(s, k)
	}, func(s *sqlite.Stmt) {
		found = true
		if string(s.ColumnBytes(0)) != string(hash[:]) && !broken.Is(broken.AnyHash) {
			conflict = facet.Errorf(facet.CodeKeyConflict, "idempotency key %d of this client was used before for another request", k.N)
			return
		}
		r.resp.Result = append(r.resp.Result, s.ColumnBytes(1)...)
	})
	if err == nil {
		err = conflict
	}
	if found || err != nil {
		return found, err
	}
	highest := int64(-1)
	err = db.query(&db.keys.highest, sqlHighest, func(s *sqlite.Stmt) error {
		return s.BindBlob(1, k.Client[:])
	}, func(s *sqlite.Stmt) {
		if s.ColumnType(0) == sqlite.Integer {
			highest = s.ColumnInt64(0)
		}
	})
	if err == nil && int64(k.N) <= highest-keyWindow && !broken.Is(broken.NoKeyWindow) {
		err = facet.Errorf(facet.CodeKeyExpired, "idempotency key %d is %d or more below the client's newest, %d, so nobody knows whether it took effect", k.N, keyWindow, highest)
	}
	return false, err
}

func bindKey(s *sqlite.Stmt, k *facet.Key) error {
	if err := s.BindBlob(1, k.Client[:]); err != nil {
		return err
	}
	return s.BindInt64(2, int64(k.N))
}

// remember writes the row of a request that is about to commit.
func (r *run) remember(hash [sha256.Size]byte) error {
	db := r.db
	k := &r.req.Key
	if db.openReserve() { // a full facet can be deleted from with a key, too
		defer db.closeReserve()
	}
	if db.keys.exists != yes {
		if err := db.exec([]byte(sqlKeys)); err != nil {
			return db.fail(err, 0)
		}
		db.keys.exists = yes
	}
	result := r.resp.Result[r.base:]
	if len(result) > maxStoredResult {
		var err error
		if result, err = countsOnly(result); err != nil {
			return facet.Errorf(facet.CodeInternal, "store result: %v", err)
		}
	}
	now := db.now().Unix()
	err := db.query(&db.keys.store, sqlStore, func(s *sqlite.Stmt) error {
		if err := bindKey(s, k); err != nil {
			return err
		}
		if err := s.BindBlob(3, hash[:]); err != nil {
			return err
		}
		if err := s.BindInt64(4, now); err != nil {
			return err
		}
		return s.BindBlob(5, result)
	}, nil)
	if err == nil && k.N >= keyWindow {
		err = db.query(&db.keys.prune, sqlPrune, func(s *sqlite.Stmt) error {
			if err := s.BindBlob(1, k.Client[:]); err != nil {
				return err
			}
			return s.BindInt64(2, int64(k.N)-keyWindow)
		}, nil)
	}
	if db.keys.sincePrune++; err == nil && db.keys.sincePrune >= pruneEvery {
		db.keys.sincePrune = 0
		err = db.pruneClients(now - int64(keyAge.Seconds()))
	}
	db.changed = db.conn.TotalChanges()
	return err
}

// pruneClients looks at the next clients, in order, and removes those silent since
// before.
func (db *DB) pruneClients(before int64) error {
	k := &db.keys
	for range pruneClients {
		var client []byte
		at := k.cursor
		err := db.query(&k.nextClient, sqlNext, func(s *sqlite.Stmt) error {
			return s.BindBlob(1, at)
		}, func(s *sqlite.Stmt) {
			client = append(client, s.ColumnBytes(0)...)
		})
		if err != nil {
			return err
		}
		k.cursor = client // nil at the end: begin again next time
		if client == nil {
			return nil
		}
		bindClient := func(s *sqlite.Stmt) error { return s.BindBlob(1, client) }
		var newest int64
		if err = db.query(&k.newest, sqlNewest, bindClient, func(s *sqlite.Stmt) { newest = s.ColumnInt64(0) }); err != nil {
			return err
		}
		if newest >= before {
			continue
		}
		if err = db.query(&k.dropKeys, sqlForget, bindClient, nil); err != nil {
			return err
		}
	}
	return nil
}

// query runs one of facetd's own statements, prepared when first used.
func (db *DB) query(slot **sqlite.Stmt, sql string, bind func(*sqlite.Stmt) error, row func(*sqlite.Stmt)) error {
	was := db.internal
	db.internal = true
	defer func() { db.internal = was }()
	if err := db.prepareOwn(slot, sql); err != nil {
		return db.fail(err, 0)
	}
	s := *slot
	defer s.ClearBindings()
	defer s.Reset()
	if err := bind(s); err != nil {
		return db.fail(err, 0)
	}
	for {
		more, err := s.Step()
		if err != nil {
			return db.fail(err, 0)
		}
		if !more {
			return nil
		}
		if row != nil {
			row(s)
		}
	}
}

func (db *DB) prepareOwn(slot **sqlite.Stmt, sql string) error {
	if *slot != nil {
		return nil
	}
	s, _, err := db.conn.PreparePersistent([]byte(sql))
	if err != nil {
		return err
	}
	*slot = s
	return nil
}

// stepCached runs a statement of facetd's own that has no parameters.
func (db *DB) stepCached(slot **sqlite.Stmt, sql string) error {
	if err := db.prepareOwn(slot, sql); err != nil {
		return err
	}
	_, err := (*slot).Step()
	(*slot).Reset()
	return err
}

// countsOnly is a result without its columns and rows.
func countsOnly(res facet.Result) (facet.Result, error) {
	var out facet.Result
	for len(res) > 0 {
		it, rest, err := res.Next()
		if err != nil {
			return nil, err
		}
		if it.Kind != facet.ItemColumns && it.Kind != facet.ItemRow {
			out = append(out, res[:len(res)-len(rest)]...)
		}
		res = rest
	}
	return out, nil
}

// requestHash is over all that decides the effect of a request.
func requestHash(req *facet.Request) (sum [sha256.Size]byte) {
	h := sha256.New()
	var buf [64]byte
	flags := byte(0)
	if req.Atomic {
		flags |= 1
	}
	if req.ReadOnly {
		flags |= 2
	}
	h.Write(append(buf[:0], flags))
	number(h, uint64(len(req.Steps)))
	for i := range req.Steps {
		st := &req.Steps[i]
		norows := byte(0)
		if st.NoRows {
			norows = 1
		}
		h.Write(append(buf[:0], byte(st.Kind), norows))
		text(h, st.SQL)
		number(h, uint64(st.NArgs))
		text(h, st.Args)
		number(h, uint64(len(st.Names)))
		for _, n := range st.Names {
			text(h, []byte(n))
		}
		condition(h, st.Condition)
	}
	h.Sum(sum[:0])
	return sum
}

func number(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

func text[T ~[]byte](h hash.Hash, s T) {
	number(h, uint64(len(s)))
	h.Write(s)
}

func condition(h hash.Hash, c *facet.Condition) {
	if c == nil {
		number(h, 0)
		return
	}
	number(h, uint64(c.Op)+1)
	number(h, uint64(c.Step))
	number(h, uint64(len(c.Conds)))
	for i := range c.Conds {
		condition(h, &c.Conds[i])
	}
}
