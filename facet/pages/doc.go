// Package pages keeps the pages of one facet: the database file, the overlay of
// committed pages not yet in the file, the private stage of the transaction under
// way, the page changes a commit carries, and the rolling checksum over all of it.
//
// It knows nothing of SQLite, of logs or of other facets. The engine writes pages
// into the stage and seals them into commits; a replica applies commits; both
// checkpoint. Durability is not its business: whoever calls it hands commits to a
// log and calls Checkpoint only for what is known committed (rule R11).
//
// A Store belongs to one goroutine at a time. Snapshot and Checkpoint, once taken
// from it, may be used from another goroutine while the Store goes on.
package pages

import "github.com/facetd/facetd/facet"

// Size is the size of every page, in bytes.
const Size = facet.PageSize

// MaxStagedPages bounds the pages one transaction may change: 64 MiB of them.
// The bound keeps a commit below facet.MaxCommitBytes and its memory finite.
const MaxStagedPages = 64 << 20 / Size

// maxSavedPages bounds the before-images one snapshot may hold (64 MiB).
const maxSavedPages = 64 << 20 / Size

// File is the database file. WriteAt and Datasync are called by one goroutine,
// ReadAt by any; all offsets are multiples of Size.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Size() (int64, error)
	Datasync() error
	Close() error
}
