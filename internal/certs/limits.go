package certs

import "time"

const (
	// MaxFile bounds a file with certificates and keys: a few hundred CAs, more than
	// the list of any operating system.
	MaxFile = 1 << 20

	// maxNames bounds the host names of a certificate and the constraints of a CA.
	maxNames = 100

	// maxName bounds a name: the length of a DNS name.
	maxName = 253

	// DefaultAuthorityLife is how long a CA is good for. It is exchanged by hand, and
	// everybody who knows it has to be told.
	DefaultAuthorityLife = 10 * 365 * 24 * time.Hour

	// DefaultLife is how long other certificates are good for. Some clients take none
	// that is good for longer than 398 days.
	DefaultLife = 365 * 24 * time.Hour

	// backdate is for clocks that are behind.
	backdate = 5 * time.Minute
)
