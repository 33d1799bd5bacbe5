package cluster

// Every bound of the vocabulary, with its reason. A length read from outside is
// compared with one of these before anything is allocated for it.
const (
	// MaxNodeIDLen is the length of a DNS label, so a node id can be a host name.
	MaxNodeIDLen = 63

	// MaxAddressLen is the longest address: a DNS name of 253 bytes, a colon
	// and a port, with https:// before it.
	MaxAddressLen = 267

	// MaxZoneLen keeps a member within the 512 bytes gossip gives it.
	MaxZoneLen = 63

	// MaxVersionLen bounds the version a member tells about itself.
	MaxVersionLen = 31

	// MaxNodes bounds the nodes of one cluster: ten times the largest cluster
	// the placement table is designed for.
	MaxNodes = 1024
)
