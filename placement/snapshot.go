package placement

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// The snapshot format. Numbers are big-endian, fields as in codec.go. A stream
// begins with
//
//	offset size
//	 0      8   magic "fctplace"
//	 8      2   version, 1 or 2
//	10      2   zero
//
// and goes on with blocks
//
//	 0      1   kind
//	 1      3   zero
//	 4      4   length of the payload, at most 64 KiB
//	 8      4   CRC-32C of the bytes before this field and of the payload
//	12      …   payload: records of that kind, whole
//
// in the order of their kinds, each kind in as many blocks as it needs:
//
//	1 meta      once: applied index 8, generation 2, cluster id
//	2 node      node text, store id, boot id, machine id, API and peer with two
//	            length bytes each, zone text, version text, state byte, index 8
//	3 settings  tenant text, eight limits; in version 2 also a freeze byte, and a
//	            tenant without text for the defaults
//	4 owner     node text, boot id; numbered from 1 as they come
//	5 set       set; numbered from 1 as they come
//	6 row       incarnation, epoch 8, active epoch 8, index 8, owner number 4,
//	            holder number 4 (an owner), next set number 4, active set
//	            number 4 (0 for none), state byte, flags byte (1 bound, 2
//	            pinned, 4 lineage), name, lineage if its flag is set
//	7 tombstone incarnation
//	8 end       once: count 8 of each of node, settings, owner, set, row, tombstone
//
// Version 2 is written where a tenant is frozen or there are defaults, so that a release
// that knows of neither can read what has neither, and refuses the rest.
// Nothing follows the end block, so a stream cut anywhere is noticed.
const (
	snapshotMagic   = "fctplace"
	snapshotVersion = 2
	snapshotPlain   = 1 // without freezes and defaults
	snapshotHeadLen = 12
	blockHeadLen    = 12
)

const (
	blockMeta      = 1
	blockNode      = 2
	blockSettings  = 3
	blockOwner     = 4
	blockSet       = 5
	blockRow       = 6
	blockTombstone = 7
	blockEnd       = 8
	blockKinds     = 9
)

// ErrSnapshot says that a snapshot is damaged, cut short or not one at all.
var ErrSnapshot = errors.New("placement snapshot is not sound")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is the table at one index. It stays what it is while the table goes
// on, and may be written by another goroutine.
type Snapshot struct {
	applied    uint64
	generation uint16
	cluster    cluster.ID
	nodes      []*Node
	settings   *btree.Map[facet.Tenant, *facet.TenantSettings]
	defaults   facet.TenantLimits
	chunks     []*chunk
	tombBlocks []*[tombBlockLen]facet.Incarnation
	tombs      int
}

// Freeze gives the table as it is now. It copies a pointer for every 73 rows
// and 512 tombstones, no row. Only the goroutine that calls Apply may call it.
func (t *Table) Freeze() *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.s
	f := &Snapshot{
		applied: s.applied, generation: s.generation, cluster: s.cluster,
		settings: s.settings.Copy(), defaults: s.defaults, chunks: s.rows.freeze(),
		tombBlocks: slices.Clone(s.tombs.blocks), tombs: s.tombs.n,
	}
	for _, n := range s.nodes {
		f.nodes = append(f.nodes, n)
	}
	slices.SortFunc(f.nodes, func(a, b *Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return f
}

// Snapshot is Freeze in the shape consensus asks for.
func (t *Table) Snapshot() (io.WriterTo, error) { return t.Freeze(), nil }

// Index is the log index the snapshot was taken at.
func (f *Snapshot) Index() uint64 { return f.applied }

// WriteTo writes the snapshot.
func (f *Snapshot) WriteTo(out io.Writer) (int64, error) {
	w := blockWriter{out: out}
	version := f.version()
	head := binary.BigEndian.AppendUint16([]byte(snapshotMagic), version)
	w.write(append(head, 0, 0))

	w.begin(blockMeta)
	w.buf = binary.BigEndian.AppendUint64(w.buf, f.applied)
	w.buf = binary.BigEndian.AppendUint16(w.buf, f.generation)
	w.buf = append(w.buf, f.cluster[:]...)
	w.record()

	w.begin(blockNode)
	for _, n := range f.nodes {
		w.buf = appendText(w.buf, string(n.ID))
		w.buf = append(append(append(w.buf, n.Store[:]...), n.Boot[:]...), n.Machine[:]...)
		w.buf = appendText(appendAddress(appendAddress(w.buf, n.API), n.Peer), n.Zone)
		w.buf = append(appendText(w.buf, n.Version), byte(n.State))
		w.buf = binary.BigEndian.AppendUint64(w.buf, n.Index)
		w.record()
	}
	w.begin(blockSettings)
	setting := func(t facet.Tenant, set *facet.TenantSettings) bool {
		w.buf = appendLimits(appendText(w.buf, string(t)), set.Limits)
		if version != snapshotPlain {
			w.buf = append(w.buf, byte(set.Freeze))
		}
		w.record()
		return w.err == nil
	}
	if !f.defaults.IsZero() {
		setting("", &facet.TenantSettings{Limits: f.defaults})
	}
	f.settings.Scan(setting)
	owners, sets := f.writeShared(&w)
	w.begin(blockRow)
	for _, c := range f.chunks {
		for i := range c.rows {
			if r := &c.rows[i]; r.tenant != nil {
				w.row(r, owners, sets)
			}
		}
		if w.err != nil {
			break
		}
	}
	w.begin(blockTombstone)
	for i := range f.tombs {
		w.buf = append(w.buf, f.tombBlocks[i/tombBlockLen][i%tombBlockLen][:]...)
		w.record()
	}
	counts := w.counts
	w.begin(blockEnd)
	for kind := blockNode; kind < blockEnd; kind++ {
		w.buf = binary.BigEndian.AppendUint64(w.buf, counts[kind])
	}
	w.record()
	w.flush()
	if w.err != nil {
		return w.n, fmt.Errorf("write placement snapshot at %d: %w", f.applied, w.err)
	}
	return w.n, nil
}

// version is the lowest version that can hold the snapshot.
func (f *Snapshot) version() uint16 {
	version := uint16(snapshotPlain)
	if !f.defaults.IsZero() {
		version = snapshotVersion
	}
	f.settings.Scan(func(_ facet.Tenant, set *facet.TenantSettings) bool {
		if set.Freeze != facet.NotFrozen {
			version = snapshotVersion
		}
		return version == snapshotPlain
	})
	return version
}

// writeShared writes the owners and sets that rows refer to and numbers them.
func (f *Snapshot) writeShared(w *blockWriter) (map[*Owner]uint32, map[*members]uint32) {
	owners, sets := map[*Owner]uint32{nil: 0}, map[*members]uint32{nil: 0}
	var ownerList []*Owner
	var setList []*members
	for _, c := range f.chunks {
		for i := range c.rows {
			r := &c.rows[i]
			for _, o := range [...]*Owner{r.owner, r.holder} {
				if _, ok := owners[o]; !ok {
					ownerList = append(ownerList, o)
					owners[o] = uint32(len(ownerList))
				}
			}
			for _, m := range [...]*members{r.next, r.active} {
				if _, ok := sets[m]; !ok {
					setList = append(setList, m)
					sets[m] = uint32(len(setList))
				}
			}
		}
	}
	w.begin(blockOwner)
	for _, o := range ownerList {
		w.buf = appendOwner(w.buf, *o)
		w.record()
	}
	w.begin(blockSet)
	for _, m := range setList {
		w.buf = appendSet(w.buf, Set{m})
		w.record()
	}
	return owners, sets
}

func (w *blockWriter) row(r *row, owners map[*Owner]uint32, sets map[*members]uint32) {
	w.buf = append(w.buf, r.incarnation[:]...)
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(r.epoch))
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(r.activeEpoch))
	w.buf = binary.BigEndian.AppendUint64(w.buf, r.index)
	w.buf = binary.BigEndian.AppendUint32(w.buf, owners[r.owner])
	w.buf = binary.BigEndian.AppendUint32(w.buf, owners[r.holder])
	w.buf = binary.BigEndian.AppendUint32(w.buf, sets[r.next])
	w.buf = binary.BigEndian.AppendUint32(w.buf, sets[r.active])
	w.buf = append(w.buf, byte(r.state), rowFlags(r.bound, r.pinned, r.lineage != nil))
	w.buf = appendName(w.buf, r.name())
	if r.lineage != nil {
		w.buf = appendLineage(w.buf, r.lineage)
	}
	w.record()
}

// blockWriter gathers records into blocks.
type blockWriter struct {
	out    io.Writer
	n      int64
	err    error
	kind   byte
	whole  int    // bytes of buf that are whole records
	buf    []byte // block header and payload
	counts [blockKinds]uint64
}

func (w *blockWriter) begin(kind byte) {
	w.flush()
	w.kind = kind
	w.start()
}

func (w *blockWriter) start() {
	w.buf = append(w.buf[:0], w.kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	w.whole = len(w.buf)
}

// record ends the record just appended to buf. One that does not fit any more
// goes into the next block.
func (w *blockWriter) record() {
	w.counts[w.kind]++
	if len(w.buf)-blockHeadLen > maxBlockLen {
		last := slices.Clone(w.buf[w.whole:])
		w.buf = w.buf[:w.whole]
		w.flush()
		w.start()
		w.buf = append(w.buf, last...)
	}
	w.whole = len(w.buf)
}

func (w *blockWriter) flush() {
	if len(w.buf) <= blockHeadLen {
		return
	}
	binary.BigEndian.PutUint32(w.buf[4:], uint32(len(w.buf)-blockHeadLen))
	sum := crc32.Update(crc32.Checksum(w.buf[:8], castagnoli), castagnoli, w.buf[blockHeadLen:])
	binary.BigEndian.PutUint32(w.buf[8:], sum)
	w.write(w.buf)
	w.buf = w.buf[:0]
}

func (w *blockWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.out.Write(b)
	w.n += int64(n)
	w.err = err
}

// Restore replaces the table by what a snapshot holds. On error the table is
// what it was. It needs memory for the new table and one block.
func (t *Table) Restore(in io.Reader) error {
	s, err := readSnapshot(in)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.s = s
	t.mu.Unlock()
	t.settingsVersion.Add(1)
	t.watch.reset(s.applied)
	return nil
}

// readSnapshot reads and checks a whole snapshot.
func readSnapshot(in io.Reader) (*state, error) {
	r := restorer{s: newState(), in: bufio.NewReaderSize(in, maxBlockLen), owners: []*Owner{nil}, sets: []*members{nil}}
	r.s.ownersBase, r.s.setsBase = MaxFacets, MaxFacets // no sweep before the rows are there
	if err := r.run(); err != nil {
		return nil, fmt.Errorf("restore placement snapshot: %w: %w", ErrSnapshot, err)
	}
	return r.s, nil
}

// restorer builds a state from the blocks of a snapshot.
type restorer struct {
	s       *state
	in      *bufio.Reader
	version uint16
	counts  [blockKinds]uint64
	owners  []*Owner   // by number
	sets    []*members // by number
}

func (r *restorer) run() error {
	var head [snapshotHeadLen]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	if string(head[:8]) != snapshotMagic {
		return errors.New("magic is missing")
	}
	r.version = binary.BigEndian.Uint16(head[8:])
	if r.version < snapshotPlain || r.version > snapshotVersion || head[10]|head[11] != 0 {
		return fmt.Errorf("version %d, this program knows %d; use the version that wrote it", r.version, snapshotVersion)
	}
	buf := make([]byte, blockHeadLen+maxBlockLen)
	last := byte(0)
	for last != blockEnd {
		b := buf[:blockHeadLen]
		if _, err := io.ReadFull(r.in, b); err != nil {
			return fmt.Errorf("read block header: %w", err)
		}
		kind, n := b[0], binary.BigEndian.Uint32(b[4:])
		switch {
		case n == 0 || n > maxBlockLen || b[1]|b[2]|b[3] != 0:
			return fmt.Errorf("block of kind %d has %d bytes, limit %d", kind, n, maxBlockLen)
		case kind < max(last, blockMeta) || kind > blockEnd || last == 0 && kind != blockMeta:
			return fmt.Errorf("block of kind %d after kind %d", kind, last)
		}
		payload := buf[blockHeadLen : blockHeadLen+n]
		if _, err := io.ReadFull(r.in, payload); err != nil {
			return fmt.Errorf("read block of kind %d: %w", kind, err)
		}
		sum := crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, payload)
		if want := binary.BigEndian.Uint32(b[8:]); sum != want {
			return fmt.Errorf("block of kind %d: checksum %08x, want %08x", kind, sum, want)
		}
		if err := r.block(kind, payload); err != nil {
			return fmt.Errorf("block of kind %d: %w", kind, err)
		}
		last = kind
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return errors.New("bytes follow the end")
	}
	return nil
}

func (r *restorer) block(kind byte, payload []byte) error {
	d := &decoder{b: payload}
	for len(d.b) > 0 {
		r.counts[kind]++
		switch kind {
		case blockMeta:
			r.s.applied, r.s.generation, r.s.cluster = d.u64(), d.u16(), cluster.ID(d.id())
			if r.counts[kind] > 1 {
				d.fail("a second one")
			}
		case blockNode:
			r.node(d)
		case blockSettings:
			r.settings(d)
		case blockOwner:
			o := d.owner()
			if len(r.owners) > MaxFacets {
				d.fail("too many owners")
			}
			if d.err == nil {
				r.owners = append(r.owners, r.s.shareOwner(o))
			}
		case blockSet:
			set := d.set(true)
			if len(r.sets) > 2*MaxFacets {
				d.fail("too many sets")
			}
			if d.err == nil {
				r.sets = append(r.sets, r.s.shareSet(set))
			}
		case blockRow:
			r.row(d)
		case blockTombstone:
			id := d.incarnation()
			h := r.s.hashID(id)
			if _, alive := r.s.findID(id); alive || r.s.tombs.has(h, id) {
				d.fail("%v is alive or buried twice", id)
			}
			if d.err == nil {
				r.s.tombs.add(h, id, r.s.hashID)
			}
		case blockEnd:
			for k := blockNode; k < blockEnd; k++ {
				if n := d.u64(); n != r.counts[k] {
					d.fail("%d records of kind %d, want %d", r.counts[k], k, n)
				}
			}
			r.s.sweep()
			return d.end()
		}
	}
	return d.err
}

func (r *restorer) settings(d *decoder) {
	var t facet.Tenant
	var set facet.TenantSettings
	if r.version == snapshotPlain {
		t, set.Limits = d.tenant(), d.limits()
	} else {
		t, set.Limits, set.Freeze = d.tenantOrDefaults(), d.limits(), d.freeze()
	}
	_, dup := r.s.settings.Get(t)
	if t == "" {
		dup = !r.s.defaults.IsZero() || set.Freeze != facet.NotFrozen
	}
	switch {
	case d.err != nil:
	case dup || set.IsZero() || r.s.settings.Len() >= MaxTenants:
		d.fail("settings of %q are empty, of no sense, there twice, or too many", t)
	case t == "":
		r.s.defaults = set.Limits
	default:
		r.s.setSettings(t, set)
	}
}

func (r *restorer) node(d *decoder) {
	n := &Node{ID: d.nodeID(), Store: cluster.StoreID(d.id()), Boot: cluster.BootID(d.id()),
		Machine: cluster.MachineID(d.id()), API: d.address(), Peer: d.address(),
		Zone: d.text(cluster.MaxZoneLen), Version: d.text(cluster.MaxVersionLen), State: d.nodeState(), Index: d.u64()}
	if d.err != nil {
		return
	}
	_, used := r.s.stores[n.Store]
	if used || r.s.nodes[n.ID] != nil || len(r.s.nodes) >= MaxNodes {
		d.fail("node %s or its store is there twice, or too many nodes", n.ID)
		return
	}
	r.s.nodes[n.ID], r.s.stores[n.Store] = n, n.ID
}

func (r *restorer) row(d *decoder) {
	x := row{incarnation: d.incarnation(), epoch: d.epoch(), activeEpoch: d.epoch(), index: d.u64()}
	owner, holder, next, active := d.u32(), d.u32(), d.u32(), d.u32()
	x.state = d.state()
	flags := d.flags(flagBound | flagPinned | flagLineage)
	x.bound, x.pinned = flags&flagBound != 0, flags&flagPinned != 0
	name := d.name()
	if flags&flagLineage != 0 {
		l := d.lineage()
		x.lineage = &l
	}
	switch {
	case d.err != nil:
		return
	case int(owner) >= len(r.owners) || int(holder) >= len(r.owners) || int(next) >= len(r.sets) || int(active) >= len(r.sets):
		d.fail("%v refers to an owner or set that is not there", name)
		return
	case x.epoch.IsZero() || x.activeEpoch > x.epoch || next == 0:
		d.fail("%v has epoch %v, active epoch %v, next set %d", name, x.epoch, x.activeEpoch, next)
		return
	case holder != 0 && x.activeEpoch.IsZero():
		d.fail("%v was never activated and has a holder", name)
		return
	case r.s.rows.live >= MaxFacets:
		d.fail("more than %d rows", MaxFacets)
		return
	}
	if _, dup := r.s.findID(x.incarnation); dup {
		d.fail("incarnation %v is there twice", x.incarnation)
		return
	}
	if _, dup := r.s.findName(name); dup && x.bound {
		d.fail("%v is there twice", name)
		return
	}
	x.facet, x.tenant = name.Facet, r.s.tenantOf(name.Tenant)
	x.owner, x.holder, x.next, x.active = r.owners[owner], r.owners[holder], r.sets[next], r.sets[active]
	r.s.addRow(x)
}
