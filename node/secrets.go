package node

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster/gossip"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/auth"
	"github.com/facetd/facetd/node/credentials"
	"github.com/facetd/facetd/node/peer"
)

// openSecrets takes up the keys of tokens and what the API port proves itself with.
func (n *Node) openSecrets() (err error) {
	n.secrets = credentials.New(credentials.Options{Log: n.log, Audit: n.cfg.Audit})
	if n.cfg.AuthKeys != "" {
		n.keys, err = auth.Open(auth.Options{File: n.cfg.AuthKeys, Audience: n.cfg.ClusterName, Log: n.log, Audit: n.cfg.Audit})
		if err != nil {
			return err
		}
	}
	if n.cfg.TLS.IsZero() && n.cfg.TLSClientCA == "" {
		return nil
	}
	n.tls, err = credentials.OpenAPI(n.secrets, n.cfg.TLS, n.cfg.TLSClientCA)
	return err
}

// Reload reads the keys of tokens, the certificates and the keys of gossip again, at
// once; they are looked at every few seconds anyway.
func (n *Node) Reload() {
	if n.keys != nil {
		n.keys.Reload()
	}
	n.secrets.Reload()
}

// listenPeers opens the peer port, where everybody proves who he is if this node has a
// certificate.
func (n *Node) listenPeers(c peer.Config) (err error) {
	if n.cfg.PeerTLS.IsZero() {
		n.peers, err = peer.Listen(c)
		return err
	}
	id, err := credentials.OpenPeer(n.secrets, n.cfg.PeerTLS, n.dir.Node)
	if err != nil {
		return err
	}
	c.ServerTLS, c.ClientTLS, c.Identify = id.Server(), id.Client(), id.Identify
	if n.peers, err = peer.Listen(c); err != nil {
		return err
	}
	id.OnChange(n.peers.Recheck)
	n.peers.Recheck() // for a change since then
	return nil
}

// watchGossipKeys gives gossip the keys its file holds, now and whenever it changes.
func (n *Node) watchGossipKeys() error {
	return n.secrets.Add(credentials.Source{Name: "gossip", Files: []string{n.cfg.GossipKeys}, Take: func(contents [][]byte) (never time.Time, err error) {
		keys, err := parseGossipKeys(contents[0])
		if err != nil {
			return never, err
		}
		return never, n.gossip.SetKeys(keys)
	}})
}

// gossipKeys reads the keys gossip begins with.
func gossipKeys(file string) ([]gossip.Key, error) {
	src, err := disk.ReadBounded(file, credentials.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read the keys of gossip: %w", err)
	}
	keys, err := parseGossipKeys(src)
	if err != nil {
		return nil, fmt.Errorf("read the keys of gossip: %s: %w", file, err)
	}
	return keys, nil
}

// parseGossipKeys reads keys in base64, one a line; the first one encrypts.
func parseGossipKeys(src []byte) (keys []gossip.Key, err error) {
	number := 0
	for line := range bytes.Lines(src) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		k, err := gossip.ParseKey(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key; make one with: openssl rand -base64 32")
	}
	return keys, nil
}
