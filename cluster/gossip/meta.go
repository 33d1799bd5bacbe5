package gossip

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/facetd/facetd/cluster"
)

// What a node tells about itself, beside its id and gossip address, which the
// library carries. Integers are big-endian.
//
//	offset  bytes  what
//	0       1      magic, 0xFA
//	1       1      version, 1
//	2       1      status: 1 alive, 3 leaving
//	3       16     cluster id, zero while the node has none
//	19      16     store id
//	35      2+a    API address: length, bytes
//	        2+p    peer address
//	        1+z    zone
//	        1+v    release
//	        1, 1   room and load; left out where both are zero or there is no room for
//	               them, and then zero
//	        …      additions of later releases, skipped by readers of version 1
//	end-4   4      CRC-32C of all bytes before it
//
// Fields are only ever added before the checksum; the version is raised only
// when an older reader must refuse the member.
const (
	metaMagic   = 0xFA
	metaVersion = 1
	metaFixed   = 3 + 16 + 16
	metaMin     = metaFixed + 2 + 2 + 1 + 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeMeta returns the meta of m, or ErrMetaTooLong.
func encodeMeta(id cluster.ID, m *cluster.Member) ([]byte, error) {
	if err := checkMember(m); err != nil {
		return nil, fmt.Errorf("encode member %s: %w", m.ID, err)
	}
	n := metaMin + len(m.API) + len(m.Peer) + len(m.Zone) + len(m.Version)
	if n > maxMeta {
		return nil, fmt.Errorf("encode member %s: addresses, zone and version take %d bytes, %d too many: %w",
			m.ID, n-metaMin, n-maxMeta, ErrMetaTooLong)
	}
	hints := (m.Room != 0 || m.Load != 0) && n+2 <= maxMeta
	b := make([]byte, 0, n+2)
	b = append(b, metaMagic, metaVersion, byte(m.Status))
	b = append(b, id[:]...)
	b = append(b, m.Store[:]...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(m.API))), m.API...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(m.Peer))), m.Peer...)
	b = append(append(b, byte(len(m.Zone))), m.Zone...)
	b = append(append(b, byte(len(m.Version))), m.Version...)
	if hints {
		b = append(b, m.Room, m.Load)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// decodeMeta reads what the node called name tells about itself. Any error is
// ErrBadMeta.
func decodeMeta(name string, b []byte) (cluster.ID, cluster.Member, error) {
	fail := func(format string, args ...any) (cluster.ID, cluster.Member, error) {
		return cluster.ID{}, cluster.Member{}, fmt.Errorf("decode meta of %.80q: %s: %w", name, fmt.Sprintf(format, args...), ErrBadMeta)
	}
	if len(b) < metaMin || len(b) > maxMeta {
		return fail("%d bytes, want %d to %d", len(b), metaMin, maxMeta)
	}
	if b[0] != metaMagic {
		return fail("magic 0x%02X", b[0])
	}
	if b[1] != metaVersion {
		return fail("version %d, this release reads version %d", b[1], metaVersion)
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return fail("checksum")
	}
	var id cluster.ID
	m := cluster.Member{ID: cluster.NodeID(name), Status: cluster.Status(b[2])}
	copy(id[:], b[3:19])
	copy(m.Store[:], b[19:35])
	rest := body[metaFixed:]
	for _, f := range [...]struct {
		into  *string
		bytes int // of the length
		limit int
	}{
		{&m.API, 2, cluster.MaxAddressLen},
		{&m.Peer, 2, cluster.MaxAddressLen},
		{&m.Zone, 1, cluster.MaxZoneLen},
		{&m.Version, 1, cluster.MaxVersionLen},
	} {
		if len(rest) < f.bytes {
			return fail("cut short")
		}
		n := int(rest[0])
		if f.bytes == 2 {
			n = n<<8 | int(rest[1])
		}
		rest = rest[f.bytes:]
		if n > f.limit || n > len(rest) {
			return fail("field of %d bytes, limit %d, there are %d", n, f.limit, len(rest))
		}
		*f.into = string(rest[:n])
		rest = rest[n:]
	}
	if len(rest) >= 2 && rest[0] <= cluster.MaxRoom && rest[1] <= cluster.MaxLoad {
		m.Room, m.Load = rest[0], rest[1]
	}
	if err := checkMember(&m); err != nil {
		return fail("%v", err)
	}
	return id, m, nil
}

// checkMember is what both sides demand of a member: limits, a store, a status
// that a node can have of itself, and text that is safe to print.
func checkMember(m *cluster.Member) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if m.Store.IsZero() {
		return fmt.Errorf("member %s has no store id", m.ID)
	}
	if m.Status != cluster.StatusAlive && m.Status != cluster.StatusLeaving {
		return fmt.Errorf("member %s calls itself %s, want %s or %s", m.ID, m.Status, cluster.StatusAlive, cluster.StatusLeaving)
	}
	for _, f := range [...]struct{ what, value string }{
		{"API address", m.API}, {"peer address", m.Peer}, {"zone", m.Zone}, {"version", m.Version},
	} {
		for i := 0; i < len(f.value); i++ {
			if f.value[i] <= ' ' || f.value[i] > '~' {
				return fmt.Errorf("member %s: %s %.80q has a byte that is not printable ASCII", m.ID, f.what, f.value)
			}
		}
	}
	return nil
}
