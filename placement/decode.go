package placement

import (
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// decoder reads fields off b. The first error sticks and every later read
// gives zero, so callers check once.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
		d.b = nil
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if len(d.b) < n {
		d.fail("cut short: want %d bytes, have %d", n, len(d.b))
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// end is the error, or that bytes are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) epoch() facet.Epoch { return facet.Epoch(d.u64()) }

func (d *decoder) id() (id [16]byte) {
	copy(id[:], d.take(len(id)))
	return id
}

func (d *decoder) incarnation() facet.Incarnation {
	id := facet.Incarnation(d.id())
	if d.err == nil && id.IsZero() {
		d.fail("incarnation is zero")
	}
	return id
}

func (d *decoder) textBytes(limit int) []byte {
	n := int(d.u8())
	if n > limit {
		d.fail("text of %d bytes, limit %d", n, limit)
	}
	return d.take(n)
}

func (d *decoder) text(limit int) string { return string(d.textBytes(limit)) }

func (d *decoder) address() string {
	n := int(d.u16())
	if n > cluster.MaxAddressLen {
		d.fail("address of %d bytes, limit %d", n, cluster.MaxAddressLen)
	}
	return string(d.take(n))
}

func (d *decoder) flags(known byte) byte {
	f := d.u8()
	if f&^known != 0 {
		d.fail("unknown flags %#x", f)
	}
	return f
}

func (d *decoder) state() State {
	s := State(d.u8())
	if d.err == nil && (s < Creating || s > Retired) {
		d.fail("unknown state %d", s)
	}
	return s
}

func (d *decoder) nodeState() NodeState {
	s := NodeState(d.u8())
	if d.err == nil && int(s) >= len(nodeStateNames) {
		d.fail("unknown node state %d", s)
	}
	return s
}

func (d *decoder) checkNode(s string) cluster.NodeID {
	if d.err != nil {
		return ""
	}
	id, err := cluster.ParseNodeID(s)
	if err != nil {
		d.fail("%w", err)
	}
	return id
}

func (d *decoder) nodeID() cluster.NodeID { return d.checkNode(d.text(cluster.MaxNodeIDLen)) }

// owner reads an owner that must be somebody.
func (d *decoder) owner() Owner {
	o := Owner{Node: d.nodeID(), Boot: cluster.BootID(d.id())}
	if d.err == nil && o.Boot.IsZero() {
		d.fail("owner %s has no boot id", o.Node)
	}
	return o
}

// ownerOrNobody reads an owner that may be nobody.
func (d *decoder) ownerOrNobody() (o Owner) {
	if node := d.text(cluster.MaxNodeIDLen); node != "" {
		o.Node = d.checkNode(node)
	}
	o.Boot = cluster.BootID(d.id())
	return o
}

func (d *decoder) lineage() facet.Lineage {
	l := facet.Lineage{Source: d.incarnation(), At: d.position()}
	l.Lossy = d.flags(flagLossy) != 0
	return l
}

func (d *decoder) position() facet.Position {
	p, rest, err := facet.DecodePosition(d.b)
	if err != nil {
		d.fail("%w", err)
	}
	d.b = rest
	return p
}

func (d *decoder) tenant() facet.Tenant {
	s := d.text(facet.MaxTenantLen)
	if d.err != nil {
		return ""
	}
	t, err := facet.ParseTenant(s)
	if err != nil {
		d.fail("%w", err)
	}
	return t
}

func (d *decoder) name() facet.Name {
	tenant, name := d.text(facet.MaxTenantLen), d.text(facet.MaxFacetLen)
	if d.err != nil {
		return facet.Name{}
	}
	n, err := facet.NewName(tenant, name)
	if err != nil {
		d.fail("%w", err)
	}
	return n
}

// set reads a set and insists on its invariant: one encoding for one set.
func (d *decoder) set(needed bool) Set {
	n := int(d.u8())
	switch {
	case d.err != nil:
		return Set{}
	case n > MaxMembers:
		d.fail("set of %d members, limit %d", n, MaxMembers)
		return Set{}
	case n == 0:
		if needed {
			d.fail("set is empty")
		}
		return Set{}
	}
	list := make([]Member, n)
	for i := range list {
		list[i] = Member{Node: d.nodeID(), Store: cluster.StoreID(d.id())}
		if i > 0 && d.err == nil && list[i-1].Node >= list[i].Node {
			d.fail("set is not sorted")
		}
	}
	if d.err != nil {
		return Set{}
	}
	s, err := NewSet(list...)
	if err != nil {
		d.fail("%w", err)
	}
	return s
}

func (d *decoder) limits() (l facet.TenantLimits) {
	for _, v := range l.All() {
		*v = d.u64()
	}
	return l
}

func (d *decoder) freeze() facet.Freeze {
	f := facet.Freeze(d.u8())
	if !f.Known() {
		d.fail("unknown freeze %d", f)
	}
	return f
}

// tenantOrDefaults reads a tenant, or nothing, which stands for the defaults.
func (d *decoder) tenantOrDefaults() facet.Tenant {
	if len(d.b) > 0 && d.b[0] == 0 {
		d.take(1)
		return ""
	}
	return d.tenant()
}

func (d *decoder) changeTenant() (c ChangeTenant) {
	c.Tenant, c.Fields = d.tenantOrDefaults(), facet.TenantFields(d.u16())
	known := facet.FieldsKnown
	if c.Tenant == "" {
		known = facet.FieldsOfLimits
	}
	if c.Fields&^known != 0 || c.Fields == 0 {
		d.fail("fields %#x of tenant %q", uint16(c.Fields), c.Tenant)
	}
	for i, v := range c.Settings.Limits.All() {
		if c.Fields&(1<<i) != 0 {
			*v = d.u64()
		}
	}
	if c.Fields&facet.FieldFreeze != 0 {
		c.Settings.Freeze = d.freeze()
	}
	return c
}
