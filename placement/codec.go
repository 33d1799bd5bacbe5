package placement

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// The encoded form of commands and results. Numbers are big-endian; an id is
// its 16 bytes; "text" is one length byte and the bytes; "name" is the tenant
// as text and the facet as text; "set" is
//
//	1 byte count, then for each member: node as text, 16 bytes store
//
// A command is
//
//	offset size
//	 0      1   kind
//	 1      1   version of the payload, 1
//	 2      …   payload
//
// with these payloads, in order:
//
//	RegisterNode     1  node text, store id, boot id, machine id, API text,
//	                    peer text, zone text, version text, flags byte (1
//	                    lease over, 2 replace store). An address may have 259
//	                    bytes, so API and peer carry two length bytes.
//	Create           2  name, incarnation, node text, boot id, set,
//	                    flags byte (1 detached, 2 active, 4 lineage), lineage if
//	                    its flag is set
//	Acquire          3  incarnation, node text, boot id, expected epoch 8,
//	                    released boot id (zero for none), set
//	Activate         4  incarnation, epoch 8, boot id
//	Release          5  incarnation, epoch 8, boot id
//	Delete           6  incarnation, expected epoch 8
//	Tomb             7  incarnation, epoch 8
//	Bind             8  name, old incarnation, old epoch 8, new incarnation,
//	                    flags byte (1 unserved), left out when it is zero
//	SetClusterID     9  cluster id
//	SetTenantLimits 10  tenant text, then 8 bytes each: facets, facet bytes,
//	                    total bytes, requests/s, rows/s, concurrent requests,
//	                    statement milliseconds, memory bytes
//	RaiseGeneration 11  generation 2
//	Renew           12  nothing
//	SetNode         13  node text, state byte (0 active, 1 draining,
//	                    2 decommissioning)
//	RemoveNode      14  node text
//	Pin             15  incarnation, flags byte (1 pinned)
//	ChangeTenant    16  tenant text (empty for the defaults), fields 2, then for
//	                    each of them, from the lowest bit: limits 8 bytes each in
//	                    the order of SetTenantLimits, freeze byte (0 no, 1 writes,
//	                    2 all). A limit of 2^64-1 is none
//
// A result is
//
//	offset size
//	 0      1   version, 1
//	 1      1   outcome
//	 2      8   log index
//	10      1   0 nothing follows, 1 a row follows
//	11      …   row: incarnation, epoch 8, active epoch 8, row index 8,
//	            owner node text, owner boot id, holder node text, holder boot
//	            id (empty text and zero id for nobody), next set, active set,
//	            state byte, flags byte (1 bound, 2 pinned, 4 lineage), name,
//	            lineage if its flag is set
//
// A lineage is the incarnation of the source, its position in 32 bytes, and a flags
// byte (1 lossy). What has none is encoded as it was before there were lineages.
//
// No byte may follow. The log entry, the peer message or the snapshot block
// around it carries the checksum.
const (
	commandVersion = 1
	resultVersion  = 1

	flagLeaseOver    = 1
	flagReplaceStore = 2
	flagDetached     = 1
	flagActive       = 2
	flagCreateLine   = 4
	flagBound        = 1
	flagPinned       = 2
	flagLineage      = 4
	flagPin          = 1
	flagUnserved     = 1
	flagLossy        = 1
)

// ErrUnknownCommand says that a command or its version is not known here. A
// node that meets one in the log cannot go on: others have applied it.
var ErrUnknownCommand = errors.New("the placement command is not known to this version; use the one that wrote it")

// AppendCommand appends the encoded form of c.
func AppendCommand(dst []byte, c Command) []byte {
	return c.appendPayload(append(dst, byte(c.Kind()), commandVersion))
}

// DecodeCommand reads an encoded command and checks every field.
func DecodeCommand(src []byte) (Command, error) {
	if len(src) > MaxCommandLen {
		return nil, fmt.Errorf("decode placement command: %d bytes, limit %d", len(src), MaxCommandLen)
	}
	if len(src) < 2 {
		return nil, fmt.Errorf("decode placement command: %d bytes, want at least 2", len(src))
	}
	kind, version := Kind(src[0]), src[1]
	if version != commandVersion {
		return nil, fmt.Errorf("decode placement command: kind %d version %d: %w", kind, version, ErrUnknownCommand)
	}
	d := decoder{b: src[2:]}
	var c Command
	switch kind {
	case KindRegisterNode:
		r := RegisterNode{
			Node: d.nodeID(), Store: cluster.StoreID(d.id()), Boot: cluster.BootID(d.id()),
			Machine: cluster.MachineID(d.id()),
			API:     d.address(), Peer: d.address(), Zone: d.text(cluster.MaxZoneLen),
			Version: d.text(cluster.MaxVersionLen),
		}
		flags := d.flags(flagLeaseOver | flagReplaceStore)
		r.LeaseOver, r.ReplaceStore = flags&flagLeaseOver != 0, flags&flagReplaceStore != 0
		if d.err == nil && (r.Store.IsZero() || r.Boot.IsZero()) {
			d.fail("store and boot must be given")
		}
		c = r
	case KindCreate:
		r := Create{Name: d.name(), Incarnation: d.incarnation(), Owner: d.owner(), Set: d.set(true)}
		flags := d.flags(flagDetached | flagActive | flagCreateLine)
		r.Detached, r.Active = flags&flagDetached != 0, flags&flagActive != 0
		if flags&flagCreateLine != 0 {
			r.Lineage = d.lineage()
		}
		c = r
	case KindAcquire:
		c = Acquire{Incarnation: d.incarnation(), Owner: d.owner(), Expected: d.epoch(),
			Released: cluster.BootID(d.id()), Set: d.set(false)}
	case KindActivate:
		c = Activate{Incarnation: d.incarnation(), Epoch: d.epoch(), Boot: cluster.BootID(d.id())}
	case KindRelease:
		c = Release{Incarnation: d.incarnation(), Epoch: d.epoch(), Boot: cluster.BootID(d.id())}
	case KindDelete:
		c = Delete{Incarnation: d.incarnation(), Expected: d.epoch()}
	case KindTomb:
		c = Tomb{Incarnation: d.incarnation(), Epoch: d.epoch()}
	case KindBind:
		r := Bind{Name: d.name(), Old: facet.Incarnation(d.id()), OldEpoch: d.epoch(), New: d.incarnation()}
		if len(d.b) > 0 {
			r.Unserved = d.flags(flagUnserved) != 0
			if !r.Unserved {
				d.fail("flags that are zero are left out") // one encoding for one command
			}
		}
		c = r
	case KindSetClusterID:
		r := SetClusterID{ID: cluster.ID(d.id())}
		if d.err == nil && r.ID.IsZero() {
			d.fail("cluster id is zero")
		}
		c = r
	case KindSetTenantLimits:
		c = SetTenantLimits{Tenant: d.tenant(), Limits: d.limits()}
	case KindRaiseGeneration:
		c = RaiseGeneration{Generation: d.u16()}
	case KindRenew:
		c = Renew{}
	case KindSetNode:
		c = SetNode{Node: d.nodeID(), State: d.nodeState()}
	case KindRemoveNode:
		c = RemoveNode{Node: d.nodeID()}
	case KindPin:
		r := Pin{Incarnation: d.incarnation()}
		r.Pinned = d.flags(flagPin)&flagPin != 0
		c = r
	case KindChangeTenant:
		c = d.changeTenant()
	default:
		return nil, fmt.Errorf("decode placement command: kind %d: %w", kind, ErrUnknownCommand)
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode placement command: kind %d: %w", kind, err)
	}
	return c, nil
}

func (c RegisterNode) appendPayload(dst []byte) []byte {
	dst = appendText(dst, string(c.Node))
	dst = append(dst, c.Store[:]...)
	dst = append(dst, c.Boot[:]...)
	dst = append(dst, c.Machine[:]...)
	dst = appendAddress(dst, c.API)
	dst = appendAddress(dst, c.Peer)
	dst = appendText(appendText(dst, c.Zone), c.Version)
	return append(dst, bitIf(c.LeaseOver, flagLeaseOver)|bitIf(c.ReplaceStore, flagReplaceStore))
}

func (c Create) appendPayload(dst []byte) []byte {
	dst = appendName(dst, c.Name)
	dst = append(dst, c.Incarnation[:]...)
	dst = appendOwner(dst, c.Owner)
	dst = appendSet(dst, c.Set)
	dst = append(dst, bitIf(c.Detached, flagDetached)|bitIf(c.Active, flagActive)|bitIf(!c.Lineage.IsZero(), flagCreateLine))
	return appendLineage(dst, &c.Lineage)
}

func (c Acquire) appendPayload(dst []byte) []byte {
	dst = append(dst, c.Incarnation[:]...)
	dst = appendOwner(dst, c.Owner)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Expected))
	return appendSet(append(dst, c.Released[:]...), c.Set)
}

func (c Activate) appendPayload(dst []byte) []byte {
	return append(appendIDEpoch(dst, c.Incarnation, c.Epoch), c.Boot[:]...)
}

func (c Release) appendPayload(dst []byte) []byte {
	return append(appendIDEpoch(dst, c.Incarnation, c.Epoch), c.Boot[:]...)
}

func (c Delete) appendPayload(dst []byte) []byte {
	return appendIDEpoch(dst, c.Incarnation, c.Expected)
}

func (c Tomb) appendPayload(dst []byte) []byte {
	return appendIDEpoch(dst, c.Incarnation, c.Epoch)
}

func (c Bind) appendPayload(dst []byte) []byte {
	dst = appendIDEpoch(appendName(dst, c.Name), c.Old, c.OldEpoch)
	dst = append(dst, c.New[:]...)
	if c.Unserved {
		dst = append(dst, flagUnserved)
	}
	return dst
}

func (c SetClusterID) appendPayload(dst []byte) []byte { return append(dst, c.ID[:]...) }

func (c SetTenantLimits) appendPayload(dst []byte) []byte {
	return appendLimits(appendText(dst, string(c.Tenant)), c.Limits)
}

func (c RaiseGeneration) appendPayload(dst []byte) []byte {
	return binary.BigEndian.AppendUint16(dst, c.Generation)
}

func (Renew) appendPayload(dst []byte) []byte { return dst }

func (c SetNode) appendPayload(dst []byte) []byte {
	return append(appendText(dst, string(c.Node)), byte(c.State))
}

func (c RemoveNode) appendPayload(dst []byte) []byte { return appendText(dst, string(c.Node)) }

func (c Pin) appendPayload(dst []byte) []byte {
	return append(append(dst, c.Incarnation[:]...), bitIf(c.Pinned, flagPin))
}

func (c ChangeTenant) appendPayload(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(appendText(dst, string(c.Tenant)), uint16(c.Fields))
	for i, v := range c.Settings.Limits.All() {
		if c.Fields&(1<<i) != 0 {
			dst = binary.BigEndian.AppendUint64(dst, *v)
		}
	}
	if c.Fields&facet.FieldFreeze != 0 {
		dst = append(dst, byte(c.Settings.Freeze))
	}
	return dst
}

// AppendBinary appends the encoded form of r.
func (r *Result) AppendBinary(dst []byte) []byte {
	dst = append(dst, resultVersion, byte(r.Outcome))
	dst = binary.BigEndian.AppendUint64(dst, r.Index)
	if r.Facet.Incarnation.IsZero() {
		return append(dst, 0)
	}
	f := &r.Facet
	dst = append(append(dst, 1), f.Incarnation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.ActiveEpoch))
	dst = binary.BigEndian.AppendUint64(dst, f.Index)
	dst = appendOwner(appendOwner(dst, f.Owner), f.Holder)
	dst = appendSet(appendSet(dst, f.Next), f.Active)
	dst = append(dst, byte(f.State), rowFlags(f.Bound, f.Pinned, !f.Lineage.IsZero()))
	return appendLineage(appendName(dst, f.Name), &f.Lineage)
}

// DecodeResult reads an encoded result.
func DecodeResult(src []byte) (Result, error) {
	var r Result
	if len(src) > MaxResultLen {
		return r, fmt.Errorf("decode placement result: %d bytes, limit %d", len(src), MaxResultLen)
	}
	d := decoder{b: src}
	if v := d.u8(); d.err == nil && v != resultVersion {
		return r, fmt.Errorf("decode placement result: version %d, want %d", v, resultVersion)
	}
	r.Outcome, r.Index = Outcome(d.u8()), d.u64()
	if r.Outcome.String() == "" {
		d.fail("unknown outcome %d", r.Outcome)
	}
	switch has := d.u8(); {
	case has == 1:
		f := &r.Facet
		f.Incarnation, f.Epoch, f.ActiveEpoch, f.Index = d.incarnation(), d.epoch(), d.epoch(), d.u64()
		f.Owner, f.Holder = d.ownerOrNobody(), d.ownerOrNobody()
		f.Next, f.Active = d.set(false), d.set(false)
		f.State = d.state()
		flags := d.flags(flagBound | flagPinned | flagLineage)
		f.Bound, f.Pinned = flags&flagBound != 0, flags&flagPinned != 0
		f.Name = d.name()
		if flags&flagLineage != 0 {
			f.Lineage = d.lineage()
		}
	case has > 1:
		d.fail("bad row mark %d", has)
	}
	if err := d.end(); err != nil {
		return Result{}, fmt.Errorf("decode placement result: %w", err)
	}
	return r, nil
}

func rowFlags(bound, pinned, lineage bool) byte {
	return bitIf(bound, flagBound) | bitIf(pinned, flagPinned) | bitIf(lineage, flagLineage)
}

// appendLineage appends nothing for none.
func appendLineage(dst []byte, l *facet.Lineage) []byte {
	if l.IsZero() {
		return dst
	}
	dst = l.At.AppendBinary(append(dst, l.Source[:]...))
	return append(dst, bitIf(l.Lossy, flagLossy))
}

func bitIf(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

// appendText writes a text too long for its length byte in a way that every
// decoder refuses: no limit is as high as 255.
func appendText(dst []byte, s string) []byte {
	return append(append(dst, byte(min(len(s), 255))), s...)
}

func appendAddress(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(min(len(s), 1<<16-1))), s...)
}

func appendName(dst []byte, n facet.Name) []byte {
	return appendText(appendText(dst, string(n.Tenant)), n.Facet)
}

func appendOwner(dst []byte, o Owner) []byte {
	return append(appendText(dst, string(o.Node)), o.Boot[:]...)
}

func appendIDEpoch(dst []byte, id facet.Incarnation, e facet.Epoch) []byte {
	return binary.BigEndian.AppendUint64(append(dst, id[:]...), uint64(e))
}

func appendSet(dst []byte, s Set) []byte {
	if s.m == nil {
		return append(dst, 0)
	}
	return append(dst, s.m.key...)
}

func encodeMembers(list []Member) string {
	b := append(make([]byte, 0, 1+len(list)*32), byte(len(list)))
	for _, m := range list {
		b = append(appendText(b, string(m.Node)), m.Store[:]...)
	}
	return string(b)
}

func appendLimits(dst []byte, l facet.TenantLimits) []byte {
	for _, v := range l.All() {
		dst = binary.BigEndian.AppendUint64(dst, *v)
	}
	return dst
}
