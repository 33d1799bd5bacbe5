package peer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/facetd/facetd/cluster"
)

// kind says what a connection is for.
type kind uint8

const (
	kindPeer     kind = 1 // messages, of all facets
	kindRaft     kind = 2 // bytes of the consensus library
	kindSnapshot kind = 3 // one snapshot
	kindAsk      kind = 4 // one question and its answer, with the greetings
)

func (k kind) String() string {
	switch k {
	case kindPeer:
		return "peer"
	case kindRaft:
		return "raft"
	case kindSnapshot:
		return "snapshot"
	case kindAsk:
		return "ask"
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// verdict is the answer to a greeting. The list is append-only.
type verdict uint8

const (
	welcome      verdict = 0
	wrongCluster verdict = 1
	badVersion   verdict = 2
	wrongNode    verdict = 3
	badIdentity  verdict = 4
	noService    verdict = 5
	tooMany      verdict = 6
	shutdown     verdict = 7
	noAnswer     verdict = 8
)

var verdicts = [...]error{wrongCluster: ErrWrongCluster, badVersion: ErrVersion, wrongNode: ErrWrongNode,
	badIdentity: ErrIdentity, noService: ErrNoService, tooMany: ErrTooMany, shutdown: ErrShutdown, noAnswer: ErrNoAnswer}

func (v verdict) err() error {
	if v != welcome && int(v) < len(verdicts) {
		return verdicts[v]
	}
	return ErrRefused
}

const magic = "FACETP\r\n"

// greetingLen is the length of a greeting, for ever: it is what versions are
// agreed on with.
const greetingLen = 196

// greeting is the first thing either end says; doc.go has its table.
type greeting struct {
	kind       kind
	verdict    verdict
	versionMin uint8
	versionMax uint8
	version    uint8 // chosen; zero from the dialler
	extraLen   int   // bytes that follow, before a checksum of them
	cluster    cluster.ID
	boot       cluster.BootID
	store      cluster.StoreID
	node       cluster.NodeID
	wanted     cluster.NodeID // whom the dialler means to reach, if anyone
}

func (g *greeting) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, byte(g.kind), byte(g.verdict), g.versionMin, g.versionMax, g.version, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(g.extraLen))
	dst = append(dst, g.cluster[:]...)
	dst = append(dst, g.boot[:]...)
	dst = append(dst, g.store[:]...)
	dst = appendNode(dst, g.node)
	dst = appendNode(dst, g.wanted)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

func appendNode(dst []byte, id cluster.NodeID) []byte {
	var b [1 + cluster.MaxNodeIDLen]byte
	b[0] = byte(copy(b[1:], id))
	return append(dst, b[:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeGreeting(src []byte) (g greeting, err error) {
	switch {
	case len(src) != greetingLen || string(src[:len(magic)]) != magic:
		return g, fmt.Errorf("decode greeting: %w", ErrGreeting)
	case crc32.Checksum(src[:greetingLen-4], castagnoli) != binary.BigEndian.Uint32(src[greetingLen-4:]):
		return g, fmt.Errorf("decode greeting: %w: checksum", ErrGreeting)
	}
	g = greeting{
		kind: kind(src[8]), verdict: verdict(src[9]), versionMin: src[10], versionMax: src[11], version: src[12],
		extraLen: int(binary.BigEndian.Uint16(src[14:])),
		cluster:  cluster.ID(src[16:32]), boot: cluster.BootID(src[32:48]), store: cluster.StoreID(src[48:64]),
	}
	if g.node, err = decodeNode(src[64:128]); err != nil {
		return g, fmt.Errorf("decode greeting: %w", err)
	}
	if g.wanted, err = decodeNode(src[128:192]); err != nil {
		return g, fmt.Errorf("decode greeting: %w", err)
	}
	switch {
	case g.node.IsZero() || g.boot.IsZero():
		return g, fmt.Errorf("decode greeting: %w: it does not say who greets", ErrGreeting)
	case g.versionMin > g.versionMax:
		return g, fmt.Errorf("decode greeting: %w: versions %d to %d", ErrGreeting, g.versionMin, g.versionMax)
	case g.extraLen > MaxExchange || g.extraLen > 0 && g.kind != kindAsk:
		return g, fmt.Errorf("decode greeting: %w: %d bytes follow, limit %d with a question", ErrGreeting, g.extraLen, MaxExchange)
	}
	return g, nil
}

func decodeNode(src []byte) (cluster.NodeID, error) {
	n := int(src[0])
	if n > cluster.MaxNodeIDLen || len(bytes.TrimRight(src[1+n:], "\x00")) != 0 {
		return "", fmt.Errorf("%w: node id", ErrGreeting)
	}
	if n == 0 {
		return "", nil
	}
	return cluster.ParseNodeID(string(src[1 : 1+n]))
}

// readGreeting reads one greeting and not a byte more. A stranger is known by its
// first eight bytes.
func readGreeting(r io.Reader) (greeting, error) {
	var buf [greetingLen]byte
	if _, err := io.ReadFull(r, buf[:len(magic)]); err != nil {
		return greeting{}, fmt.Errorf("read greeting: %w", err)
	}
	if string(buf[:len(magic)]) != magic {
		return greeting{}, withoutTLS(fmt.Errorf("read greeting: %w: it begins with %q", ErrGreeting, buf[:len(magic)]), buf[:])
	}
	if _, err := io.ReadFull(r, buf[len(magic):]); err != nil {
		return greeting{}, fmt.Errorf("read greeting: %w", err)
	}
	return decodeGreeting(buf[:])
}

// appendExtra appends what follows a greeting.
func appendExtra(dst, extra []byte) []byte {
	if len(extra) == 0 {
		return dst
	}
	dst = append(dst, extra...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(extra, castagnoli))
}

// readExtra reads what follows a greeting.
func readExtra(r io.Reader, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n+4) // decodeGreeting has compared it with the limit
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read what follows the greeting: %w", err)
	}
	if binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return nil, fmt.Errorf("read what follows the greeting: %w: checksum", ErrGreeting)
	}
	return b[:n:n], nil
}

// agree picks the highest version both ranges hold, zero for none.
func agree(aMin, aMax, bMin, bMax uint8) uint8 {
	if v := min(aMax, bMax); v >= max(aMin, bMin) {
		return v
	}
	return 0
}
