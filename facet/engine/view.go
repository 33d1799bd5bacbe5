package engine

import (
	"fmt"

	"github.com/facetd/facetd/facet"
)

// TryRead runs the request on a DB that must not change: a view, or a scratch
// database. writes reports that it came to a statement that writes, or would keep a
// transaction open: then nothing happened and resp.Result is as it was. Otherwise it
// is RunWith.
func (db *DB) TryRead(req *facet.Request, resp *facet.Response, opts RunOptions) (writes bool, err error) {
	base := len(resp.Result)
	r := *req
	r.ReadOnly = true
	err = db.RunWith(&r, resp, opts)
	writes = err == error(errWrites) && !req.ReadOnly
	if err == error(errWrites) && req.ReadOnly {
		err = &facet.Error{Code: facet.CodeReadOnly, Message: "the statement writes, and the request may only read"}
	}
	if db.InTx() {
		writes = err == nil
		if rerr := db.Rollback(); rerr != nil && err == nil {
			err = rerr
		}
	}
	if writes {
		resp.Result, err = resp.Result[:base], nil
	}
	return writes, err
}

// Refresh tells a view that its store was moved on to a newer commit since the last
// request.
func (db *DB) Refresh() error {
	if err := db.usable(); err != nil {
		return err
	}
	if err := db.conn.ResetCache(); err != nil {
		return fmt.Errorf("refresh view at %v: %w", db.store.Position(), err)
	}
	db.schemaFails = unknownYet
	return nil
}
