package engine

import (
	"time"

	"github.com/facetd/facetd/facet/pages"
)

// SetLimits changes the limits that operators set for a tenant, between two requests;
// zero is what the DB was opened with. A facet that is larger than its new limit stays
// as it is: it can be read, deleted from and vacuumed.
func (db *DB) SetLimits(facetBytes int64, statementTime time.Duration, memoryBytes int64) {
	l := db.opened
	if facetBytes > 0 {
		l.FacetBytes = facetBytes
	}
	if statementTime > 0 {
		l.StatementTime = min(statementTime, l.RequestTime)
	}
	if memoryBytes > 0 {
		l.MemoryBytes = memoryBytes
	}
	l = l.withDefaults()
	quota := l.quotaPages()
	db.limits = l
	if db.closed || db.broken != nil {
		return
	}
	db.conn.SetMemoryLimit(l.MemoryBytes)
	if quota == db.quota || db.view {
		return
	}
	db.quota = quota
	db.store.SetMaxPages(max(quota, db.store.Pages()) + reservePages)
	if db.setMaxPages(quota) != nil {
		db.marks |= markReopen // the new connection gets it
	}
}

// Rows is how many rows the last request returned and changed.
func (db *DB) Rows() int64 { return db.touched }

// mayGrow asks whether the database may have n pages, before the transaction makes it so
// large.
func (db *DB) mayGrow(n uint32) error {
	if db.grow == nil || n <= db.grown {
		return nil
	}
	more := n - db.grown
	err := db.grow(int64(more) * pages.Size)
	switch {
	case err == nil:
		db.overdrawn = 0
	case db.makesRoom && db.overdrawn+more <= reservePages:
		db.overdrawn += more // taking rows out of an index may need a page first
	default:
		return err
	}
	db.grown = n
	return nil
}
