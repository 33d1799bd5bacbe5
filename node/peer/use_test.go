package peer

import (
	"errors"
	"testing"

	"github.com/facetd/facetd/facet"
)

// meter tells the same of every tenant but one, of which it tells when it may.
type meter struct{ slow chan struct{} }

func (m meter) TenantUse(tenant facet.Tenant) TenantUse {
	if tenant == "slow" {
		<-m.slow
	}
	return *sampleUse()
}

func TestUse(t *testing.T) {
	where := newAddresses()
	m := meter{make(chan struct{})}
	start(t, "n2", where, func(cfg *Config) { cfg.Meter = func() Meter { return m } })
	start(t, "n3", where, nil)
	tr := start(t, "n1", where, nil)
	got, err := tr.Peer("n2").TenantUse(t.Context(), "acme")
	if check(t, err); got != *sampleUse() {
		t.Errorf("told %+v", got)
	}
	if _, err := tr.Peer("n3").TenantUse(t.Context(), "acme"); !errors.Is(err, ErrRefused) {
		t.Errorf("of a node that meters nothing: %v", err)
	}
	done := make(chan error, maxUses+1)
	for range maxUses + 1 {
		go func() {
			_, err := tr.Peer("n2").TenantUse(t.Context(), "slow")
			done <- err
		}()
	}
	if err := <-done; !errors.Is(err, ErrBusy) { // the others wait
		t.Errorf("one question too many: %v", err)
	}
	close(m.slow)
	for range maxUses {
		check(t, <-done)
	}
}

func TestUseRefuses(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {4, 'a', 'c', 'm'}, appendUse(nil, "Acme"), append(appendUse(nil, "acme"), 0)} {
		if _, err := decodeUse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("USE %q: %v", b, err)
		}
	}
	good := appendUsed(nil, sampleUse())
	for n := range good {
		if _, _, err := decodeUsed(good[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("USED of %d bytes: %v", n, err)
		}
	}
	bad := sampleUse()
	bad.Freeze = 3
	if _, _, err := decodeUsed(appendUsed(nil, bad)); !errors.Is(err, ErrMalformed) {
		t.Errorf("USED with an unknown freeze: %v", err)
	}
}
