package quorum

import "github.com/facetd/facetd/facet"

// Begin is temporary until the real one is merged.
func Begin(row Row, self StoreID, boot BootID, now Instant, last facet.Position) (*Session, error) {
	s, err := NewSession(row, self, boot)
	if err != nil {
		return nil, err
	}
	s.adopt(s.self, last)
	s.settled = last.Seq
	return s, nil
}
