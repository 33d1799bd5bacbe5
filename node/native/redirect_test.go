package native

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native/nativetest"
)

// An error frame of not_owner carries the owner and its epoch, also when the
// service says where it came from, and ends the transaction it was about.
func TestNotOwnerFrame(t *testing.T) {
	var moved atomic.Bool
	svc := &nativetest.Service{Before: func(r *facet.Request) error {
		if !moved.Load() {
			return nil
		}
		e := facet.Errorf(facet.CodeNotOwner, "n2 owns it")
		e.Owner, e.Epoch = "10.0.0.2:7400", 1<<48|8
		return fmt.Errorf("submit %v: %w", r.Name, e)
	}}
	p := connect(t, start(t, svc, Options{}))
	p.request(1, facet.Request{KeepTx: true, Steps: step("BEGIN")})
	f := p.read()
	part, err := wire.DecodeResponse(f)
	if err != nil || part.Tx.IsZero() {
		t.Fatalf("%+v, %v", part, err)
	}
	moved.Store(true)
	for id, tx := range []facet.TxID{{}, part.Tx} {
		p.request(uint32(2+id), facet.Request{Tx: tx, KeepTx: true, Steps: step("INSERT 1")})
		f := p.read()
		e, err := facet.DecodeError(f.Body)
		if err != nil || f.Type != wire.TypeError || e.Code != facet.CodeNotOwner || e.Owner != "10.0.0.2:7400" || e.Epoch != 1<<48|8 {
			t.Errorf("%v frame: %+v, %v", f.Type, e, err)
		}
	}
}
