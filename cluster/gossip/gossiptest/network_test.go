package gossiptest

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestRepeatAndJitter: with these, datagrams come twice and out of order, and without
// them as they were sent.
func TestRepeatAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		open := func(ip string) net.PacketConn {
			pc, l, err := n.Host(ip).Listen(netip.AddrPortFrom(netip.MustParseAddr(ip), 7402))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pc.Close(); l.Close() })
			return pc
		}
		from, to := open("10.0.0.1"), open("10.0.0.2")
		send := func() (got []byte) {
			for i := range byte(50) {
				if _, err := from.WriteTo([]byte{i}, to.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Second)
			for range len(to.(packetConn).packets) {
				b := make([]byte, 1)
				if _, _, err := to.ReadFrom(b); err != nil {
					t.Fatal(err)
				}
				got = append(got, b[0])
			}
			return got
		}
		order := func(b []byte) (sorted bool) {
			for i := range b[1:] {
				if b[i] > b[i+1] {
					return false
				}
			}
			return true
		}
		if got := send(); len(got) != 50 || !order(got) {
			t.Errorf("a network without faults brought %v", got)
		}
		n.SetRepeat(1)
		if got := send(); len(got) != 100 || !order(got) {
			t.Errorf("datagrams that are repeated came as %v", got)
		}
		n.SetRepeat(0)
		n.SetJitter(time.Second)
		if got := send(); len(got) != 50 || order(got) {
			t.Errorf("datagrams that overtake one another came as %v", got)
		}
	})
}
