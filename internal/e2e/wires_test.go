//go:build unix

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// wires is a network of which every link can be cut: each node has a network
// namespace of its own, with one cable to a bridge at which the tests are too.
// The addresses are of 198.18.0.0/15, which is reserved for tests of networks.
type wires struct {
	t      testing.TB
	id     string // four hex digits, in the name of everything here
	subnet string
	plugs  []int
	cuts   map[[2]int]bool // from, to

	shapers map[int]*shaper // by node
}

// outside is the number of the tests, where clients are.
const outside = 254

// newWires makes the bridge, or skips the test where that is not allowed.
func newWires(t testing.TB) *wires {
	t.Helper()
	w := &wires{t: t, id: fmt.Sprintf("%04x", rand.IntN(1<<16)), subnet: fmt.Sprintf("198.18.%d.", rand.IntN(256)), cuts: make(map[[2]int]bool)}
	if err := w.try("link", "add", w.bridge(), "type", "bridge"); err != nil {
		t.Skip("cannot make a network (needs root): ", err)
	}
	t.Cleanup(w.close)
	if err := w.try("netns", "add", w.name(0)); err != nil {
		t.Skip("cannot make a network namespace (needs root): ", err)
	}
	w.ip("netns", "del", w.name(0))
	w.ip("addr", "add", w.host(outside)+"/24", "dev", w.bridge())
	w.ip("link", "set", w.bridge(), "up")
	return w
}

func (w *wires) bridge() string    { return "fx" + w.id }
func (w *wires) name(k int) string { return fmt.Sprintf("fx%s-%d", w.id, k) }
func (w *wires) host(k int) string { return fmt.Sprintf("%s%d", w.subnet, k) }
func (w *wires) number(h string) int {
	var k int
	fmt.Sscan(strings.TrimPrefix(h, w.subnet), &k)
	return k
}

// space is the namespace of the node with the address.
func (w *wires) space(host string) string { return w.name(w.number(host)) }

func (w *wires) try(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (w *wires) ip(args ...string) {
	w.t.Helper()
	if err := w.try(args...); err != nil {
		w.t.Fatal(err)
	}
}

// plug makes the namespace of node k and its cable.
func (w *wires) plug(k int) {
	w.t.Helper()
	ns, cable := w.name(k), w.name(k)
	w.ip("netns", "add", ns)
	w.plugs = append(w.plugs, k)
	w.ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", ns)
	w.ip("link", "set", cable, "master", w.bridge(), "up")
	w.ip("-n", ns, "addr", "add", w.host(k)+"/24", "dev", "eth0")
	w.ip("-n", ns, "link", "set", "eth0", "up")
	w.ip("-n", ns, "link", "set", "lo", "up")
}

// unplug pulls the cable of the node: nobody reaches it, clients neither.
func (w *wires) unplug(host string) { w.ip("link", "set", w.space(host), "down") }

// cut drops what goes from one node to another, silently. What comes back is not
// touched.
//
// A neighbour entry does it, with an address nobody has: unlike a filter it needs no
// module of the kernel, and unlike a route it gives the sender no error.
func (w *wires) cut(from, to string) {
	w.ip("-n", w.space(from), "neigh", "replace", to, "lladdr", "02:00:00:00:ff:ff", "nud", "permanent", "dev", "eth0")
	w.cuts[[2]int{w.number(from), w.number(to)}] = true
}

// heal plugs all cables in and ends all cuts.
func (w *wires) heal() {
	for c := range w.cuts {
		w.ip("-n", w.name(c[0]), "neigh", "del", w.host(c[1]), "dev", "eth0")
	}
	clear(w.cuts)
	for _, k := range w.plugs {
		w.unshape(k)
		w.ip("link", "set", w.name(k), "up")
	}
}

func (w *wires) close() {
	for _, k := range w.plugs {
		w.unshape(k)
		// The cable would go with the namespace, which however stays for as long as
		// the kernel tries to end connections over links that were cut.
		w.ip("link", "del", w.name(k))
		w.ip("netns", "del", w.name(k))
	}
	w.ip("link", "del", w.bridge())
}
