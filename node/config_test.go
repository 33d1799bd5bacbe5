package node

import (
	"strings"
	"testing"
)

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "127.9.9.9:0": true,
		":7400": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "127.0.0.1": false, "example.com:1": false} {
		if got := IsLoopback(addr); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// TestPlaintext: a port that other machines reach is encrypted, or somebody said that it
// need not be.
func TestPlaintext(t *testing.T) {
	api, all := TLSFiles{Cert: "c"}, TLSFiles{Cert: "c", CA: "a"}
	for i, c := range []struct {
		cfg  Config
		open string // ports, as the error names them
	}{
		{Config{Listen: "127.0.0.1:1", PeerListen: "[::1]:2", GossipListen: "localhost:3"}, ""},
		{Config{Listen: "0.0.0.0:1"}, "API"},
		{Config{Listen: ":1", TLS: api}, ""},
		{Config{Listen: ":1", TLS: TLSFiles{CA: "a"}}, "API"},
		{Config{Listen: "127.0.0.1:1", PeerListen: ":2", GossipListen: ":3"}, "peer gossip"},
		{Config{Listen: ":1", PeerListen: ":2", GossipListen: ":3", TLS: api, PeerTLS: all}, "gossip"},
		{Config{Listen: ":1", PeerListen: ":2", GossipListen: ":3", TLS: api, GossipKeys: "k"}, "peer"},
		{Config{Listen: ":1", PeerListen: ":2", GossipListen: ":3", TLS: api, PeerTLS: all, GossipKeys: "k"}, ""},
		{Config{Listen: ":1", PeerListen: ":2", GossipListen: ":3", AllowPlaintext: true}, ""},
	} {
		err := c.cfg.Plaintext()
		if (err == nil) != (c.open == "") {
			t.Errorf("%d: %v", i, err)
			continue
		}
		for port := range strings.FieldsSeq("API peer gossip") {
			if got := err != nil && strings.Contains(err.Error(), "the "+port+" port at "); got != strings.Contains(c.open, port) {
				t.Errorf("%d, %s: %v", i, port, err)
			}
		}
		c.cfg.fill()
		c.cfg.Dir, c.cfg.Insecure = "d", true
		if got := c.cfg.validate(); (got == nil) != (c.open == "") && !strings.Contains(got.Error(), "peer address and a gossip address") {
			t.Errorf("%d: %v", i, got)
		}
	}
	for _, bad := range []string{"https://", "https://a/b", "ftp://a", "https://u@a", "https://a?b"} {
		c := Config{Dir: "d", Insecure: true, Advertise: bad}
		c.fill()
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), "advertised address") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
