package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/facet"
)

// magic begins a Hello, so that a stray connection is told from an old client.
const magic = "FACETD\r\n"

// Hello is the first frame of a client:
//
//	8 bytes  magic "FACETD\r\n"
//	uvarint  lowest version the client speaks
//	uvarint  highest version
//	str      name and version of the client software, for the server's log
//	str      token, empty when the Upgrade request carried it or there is none
//
// What follows is ignored: later versions append.
type Hello struct {
	VersionMin, VersionMax uint64
	Software               string
	Token                  string
}

// AppendHello appends the frame of h.
func AppendHello(dst []byte, h Hello) []byte {
	dst, at := BeginFrame(dst, TypeHello, 0, 0)
	dst = append(dst, magic...)
	dst = binary.AppendUvarint(dst, h.VersionMin)
	dst = binary.AppendUvarint(dst, h.VersionMax)
	dst = facet.AppendStr(dst, h.Software)
	dst = facet.AppendStr(dst, h.Token)
	return EndFrame(dst, at)
}

// DecodeHello reads the body of a Hello.
func DecodeHello(body []byte) (h Hello, err error) {
	if len(body) < len(magic) || string(body[:len(magic)]) != magic {
		return h, fmt.Errorf("decode hello: %w: bad magic", ErrProtocol)
	}
	d := decoder{src: body[len(magic):]}
	h.VersionMin = d.uvarint("version")
	h.VersionMax = d.uvarint("version")
	h.Software = string(d.str("software", MaxLabel))
	h.Token = string(d.str("token", MaxToken))
	if d.err == nil && h.VersionMin > h.VersionMax {
		d.fail("version range")
	}
	return h, d.wrap("hello")
}

// HelloOK is the server's answer:
//
//	uvarint  version spoken from here on
//	uvarint  longest frame body the server accepts
//	uvarint  requests the client may have unanswered
//	str      id of the node
//	str      id of the cluster, empty when it has none
//	str      version of the server software
//	uvarint  features, none where it is missing
//
// What follows is ignored.
type HelloOK struct {
	Version     uint64
	MaxFrame    uint64
	MaxInFlight uint64
	Node        string
	Cluster     string
	Software    string
	Features    Features
}

// Features are what a server understands beside what its version of the protocol says.
type Features uint64

// FeatureTrace: requests may carry a trace (FlagTrace).
const FeatureTrace Features = 1 << 0

// AppendHelloOK appends the frame of h.
func AppendHelloOK(dst []byte, h HelloOK) []byte {
	dst, at := BeginFrame(dst, TypeHelloOK, 0, 0)
	dst = binary.AppendUvarint(dst, h.Version)
	dst = binary.AppendUvarint(dst, h.MaxFrame)
	dst = binary.AppendUvarint(dst, h.MaxInFlight)
	dst = facet.AppendStr(dst, h.Node)
	dst = facet.AppendStr(dst, h.Cluster)
	dst = facet.AppendStr(dst, h.Software)
	dst = binary.AppendUvarint(dst, uint64(h.Features))
	return EndFrame(dst, at)
}

// DecodeHelloOK reads the body of a HelloOK.
func DecodeHelloOK(body []byte) (h HelloOK, err error) {
	d := decoder{src: body}
	h.Version = d.uvarint("version")
	h.MaxFrame = d.uvarint("max frame")
	h.MaxInFlight = d.uvarint("max in flight")
	h.Node = string(d.str("node", MaxLabel))
	h.Cluster = string(d.str("cluster", MaxLabel))
	h.Software = string(d.str("software", MaxLabel))
	if d.err == nil && len(d.src) > 0 {
		h.Features = Features(d.uvarint("features"))
	}
	if d.err == nil {
		switch {
		case h.Version < VersionMin || h.Version > VersionMax:
			d.fail("version")
		case h.MaxFrame < MaxHello:
			d.fail("max frame")
		case h.MaxInFlight == 0:
			d.fail("max in flight")
		}
	}
	h.MaxFrame = min(h.MaxFrame, MaxFrame)
	return h, d.wrap("hello answer")
}

// AppendError appends a TypeError or TypeGoAway frame that tells e, its texts cut
// to what may travel.
func AppendError(dst []byte, t Type, id uint32, e *facet.Error) []byte {
	if len(e.Message) > MaxErrorLen || len(e.Limit) > MaxLabel || len(e.Owner) > MaxLabel {
		short := *e
		short.Message = cut(e.Message, MaxErrorLen)
		short.Limit = cut(e.Limit, MaxLabel)
		short.Owner = cut(e.Owner, MaxLabel)
		e = &short
	}
	dst, at := BeginFrame(dst, t, 0, id)
	return EndFrame(facet.AppendError(dst, e), at)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// AppendEmpty appends a frame without a body: a Cancel.
func AppendEmpty(dst []byte, t Type, id uint32) []byte {
	dst, at := BeginFrame(dst, t, 0, id)
	return EndFrame(dst, at)
}

// AppendPing appends a TypePing or TypePong frame.
func AppendPing(dst []byte, t Type, id uint32, payload []byte) []byte {
	dst, at := BeginFrame(dst, t, 0, id)
	return EndFrame(append(dst, payload...), at)
}

// decoder reads a body front to back and keeps the first error.
type decoder struct {
	src []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("bad %s", what)
	}
	d.src = nil
}

func (d *decoder) byte(what string) byte {
	if len(d.src) == 0 {
		d.fail(what)
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

func (d *decoder) uvarint(what string) uint64 {
	// Most numbers of a request are below 128.
	if len(d.src) > 0 && d.src[0] < 0x80 {
		n := d.src[0]
		d.src = d.src[1:]
		return uint64(n)
	}
	n, k := binary.Uvarint(d.src)
	if k <= 0 {
		d.fail(what)
		return 0
	}
	d.src = d.src[k:]
	return n
}

// bytes takes n bytes; the caller compared n with its limit.
func (d *decoder) bytes(what string, n int) []byte {
	if n > len(d.src) {
		d.fail(what)
		return nil
	}
	b := d.src[:n:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) str(what string, limit int) []byte {
	n := d.uvarint(what)
	if n > uint64(limit) {
		d.fail(what)
		return nil
	}
	return d.bytes(what, int(n))
}

func (d *decoder) wrap(what string) error {
	if d.err != nil {
		return fmt.Errorf("decode %s: %w: %w", what, ErrProtocol, d.err)
	}
	return nil
}
