package hostile

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node"
)

// TestPorts sends strangers' bytes to the ports of nodes among themselves: they are hung
// up on in bounded time, and the node goes on.
func TestPorts(t *testing.T) {
	gossip := free(t)
	w := newWorld(t, func(c *node.Config) {
		c.PeerListen, c.GossipListen = "127.0.0.1:0", gossip
	})
	was := inUse()
	addr, err := net.ResolveTCPAddr("tcp", gossip)
	if err != nil {
		t.Fatal(err)
	}
	greeting := append([]byte("FACETP\r\n"), make([]byte, 188)...)
	snapshot := append([]byte("FACETP\r\n\x03"), make([]byte, 187)...)
	list := []struct {
		name  string
		to    net.Addr
		bytes []byte
	}{
		{"HTTP to the peer port", w.n.PeerAddr(), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{"TLS to the peer port", w.n.PeerAddr(), []byte("\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + rep("\x00", 160))},
		{"greeting of zeros", w.n.PeerAddr(), greeting},
		{"greeting of ones", w.n.PeerAddr(), []byte("FACETP\r\n" + rep("\xff", 188))},
		{"greeting for a snapshot", w.n.PeerAddr(), snapshot},
		{"greeting cut off", w.n.PeerAddr(), greeting[:100]},
		{"nothing to the peer port", w.n.PeerAddr(), nil},
		{"a megabyte to the peer port", w.n.PeerAddr(), []byte(rep("\xff", 1<<20))},
		{"native hello to the peer port", w.n.PeerAddr(), wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1, Token: w.root})},
		{"garbage to gossip", addr, []byte(rep("\xff", 1000))},
		{"HTTP to gossip", addr, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{"label of gossip and garbage", addr, []byte("\xf4\x06facetd" + rep("\x09", 1000))},
		{"push and pull of 2^31 nodes", addr, []byte("\xf4\x06facetd\x06\x83\xa5Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\xce\x7f\xff\xff\xff\xa4Join\xc3")},
		{"user message of 2^31", addr, []byte("\xf4\x06facetd\x08\x81\xaaUserMsgLen\xce\x7f\xff\xff\xff")},
		{"metrics of the peer port", w.n.PeerAddr(), []byte("GET /metrics HTTP/1.0\r\n\r\n")},
		{"peer greeting to the API", w.n.Addr(), greeting},
		{"gossip to the API", w.n.Addr(), []byte("\xf4\x06facetd\x06" + rep("\x00", 100))},
	}
	for _, in := range list {
		t.Run(in.name, func(t *testing.T) {
			w.t = t
			// All but what is cut off is answered by hanging up, which takes no time.
			if out := w.raw(in.to, 300*time.Millisecond, 0, in.bytes); strings.Contains(out, "facet_") {
				t.Errorf("it tells %.200q", out)
			}
			w.unharmed()
		})
	}
	w.t = t
	udp, err := net.Dial("udp", gossip)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 2000 {
		fmt.Fprintf(udp, "\xf4\x06facetd%s", rep(string(rune(i%256)), i%1200+1))
	}
	w.unharmed()
	w.back(was)
	t.Logf("%d inputs and 2000 datagrams", len(list))
}

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestFloods opens many connections to every port, in every state one can be left in.
// The victim is served all the while, memory stays bounded, and afterwards goroutines and
// descriptors are what they were.
func TestFloods(t *testing.T) {
	gossip := free(t)
	w := newWorld(t, func(c *node.Config) {
		c.PeerListen, c.GossipListen = "127.0.0.1:0", gossip
	})
	tcp, err := net.ResolveTCPAddr("tcp", gossip)
	if err != nil {
		t.Fatal(err)
	}
	auth := "Authorization: Bearer " + w.mallory + "\r\n"
	was := inUse()
	const each = 80
	for _, f := range []struct {
		name  string
		to    net.Addr
		bytes string
		some  int
	}{
		{"silent", w.n.Addr(), "", each},
		{"half a header", w.n.Addr(), "GET / HTTP/1.1\r\nX: ", each},
		{"half a body", w.n.Addr(), "POST " + denExec + " HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 40000000\r\n\r\nSELECT ", each},
		{"half a chunk", w.n.Addr(), "POST " + denExec + " HTTP/1.1\r\nHost: x\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n100000\r\nSEL", each},
		{"half an import", w.n.Addr(), "PUT /v1/facets/mallory/up/import HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 40000000\r\n\r\nSQLite format 3\x00", 50},
		{"upgraded and silent", w.n.Addr(), "GET " + wire.Path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + wire.Protocol + "\r\n\r\n", each},
		{"HTTP/2 and silent", w.n.Addr(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", each},
		{"answers not read", w.n.Addr(), rep("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200), 50},
		{"peer port", w.n.PeerAddr(), "FACETP\r\n", 2 * each},
		{"gossip", tcp, "\xf4\x06facetd\x06", 2 * each},
	} {
		t.Run(f.name, func(t *testing.T) {
			w.t = t
			conns := make([]net.Conn, 0, f.some)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range f.some / 8 {
						c, err := net.Dial("tcp", f.to.String())
						if err != nil {
							t.Error(err)
							return
						}
						io.WriteString(c, f.bytes) // it may be refused already
						mu.Lock()
						conns = append(conns, c)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			for range 5 {
				w.unharmed()
			}
			if now := inUse(); now.heap > was.heap+256<<20 {
				t.Errorf("%d connections hold %d MiB", len(conns), (now.heap-was.heap)>>20)
			}
			for _, c := range conns {
				c.Close()
			}
			w.back(was)
		})
	}
	w.t = t
}
