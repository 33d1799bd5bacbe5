package replica

import (
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

func (r Replica) Promised() (facet.Epoch, Boot) { m := r.Meta(); return m.Promised, m.Boot }

type BaseFile struct{ f *dbFile }

func (b BaseFile) ReadPage(pgno uint32, dst []byte) error {
	_, err := b.f.ReadAt(dst, int64(pgno-1)*facet.PageSize)
	return err
}
func (b BaseFile) Close() error { return b.f.Close() }

func (r Replica) BaseSource() (pages.Base, BaseFile, error) {
	m := r.Meta()
	f, err := r.s.openDB(r.st.id, false)
	return pages.Base{Position: m.Base, Pages: m.BasePages}, BaseFile{f}, err
}
