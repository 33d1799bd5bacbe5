package node

import "strings"

// encrypted reports whether the API port speaks TLS.
func (n *Node) encrypted() bool { return n.tls != nil && n.cfg.TLS.Cert != "" }

// URL is where the API port of this node is.
func (n *Node) URL() string {
	if n.encrypted() {
		return "https://" + n.Addr().String()
	}
	return "http://" + n.Addr().String()
}

// apiURL is the URL of an API port, without a slash at its end, of what a node
// advertises.
func apiURL(at string) string {
	if strings.Contains(at, "://") {
		return at
	}
	return "http://" + at
}
