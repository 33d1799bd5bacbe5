package peer

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
)

// The bodies of everything but APPEND and ACK; doc.go has their tables.

const sessionLen = 16 + 8

func appendSessions(dst []byte, list []Session) []byte {
	for i := range list {
		dst = append(dst, list[i].Incarnation[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(list[i].Epoch))
	}
	return dst
}

func decodeSessions(body []byte) ([]Session, error) {
	n := len(body) / sessionLen
	if n == 0 || n > MaxItems {
		return nil, fmt.Errorf("decode sessions: %w: %d items, limit %d", ErrMalformed, n, MaxItems)
	}
	d := decoder{src: body}
	list := make([]Session, n)
	for i := range list {
		list[i] = Session{d.incarnation("incarnation"), facet.Epoch(d.u64("epoch"))}
		if d.err == nil && list[i].Epoch == 0 {
			d.fail("epoch")
		}
	}
	return list, d.end("sessions")
}

// appendPromise appends the answer to item i of a PREPARE.
func appendPromise(dst []byte, i int, p *replica.Promise, err error) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(i))
	dst = appendOutcome(dst, err)
	if err != nil {
		return dst
	}
	dst = p.Last.AppendBinary(dst)
	dst = p.Base.Position.AppendBinary(dst)
	dst = binary.BigEndian.AppendUint32(dst, p.Base.Pages)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.CommitKnown))
	return append(dst, byte(p.Health))
}

// decodePromises reads answers into out, whose items belong to the sessions asked
// about, and calls got with the number of each.
func decodePromises(body []byte, asked []Session, out []PrepareResult, got func(int)) error {
	d := decoder{src: body}
	for len(d.src) > 0 {
		i := int(d.u16("number"))
		r := PrepareResult{Err: d.outcome()}
		if r.Err == nil {
			last, base := d.position("end of the log"), d.position("base")
			r.Promise = replica.Promise{Last: last, Base: pages.Base{Position: base, Pages: d.u32("size")}}
			r.Promise.CommitKnown = facet.Seq(d.u64("commit"))
			r.Promise.Health = replica.Health(d.u8("health"))
			if r.Promise.Health > replica.Diverged || r.Promise.Base.Pages > facet.MaxPages {
				d.fail("health or size")
			}
		}
		if i >= len(out) {
			d.fail("number")
		}
		if d.err != nil {
			break
		}
		if r.Err == nil {
			r.Promise.Incarnation, r.Promise.Epoch = asked[i].Incarnation, asked[i].Epoch
		}
		out[i] = r
		got(i)
	}
	return d.end("promise")
}

const fetchLen = 16 + 8 + 8 + 8 + 4

func appendFetch(dst []byte, r *FetchRequest) []byte {
	dst = append(dst, r.Incarnation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.From))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.To))
	return binary.BigEndian.AppendUint32(dst, r.MaxBytes)
}

func decodeFetch(body []byte) (r FetchRequest, err error) {
	d := decoder{src: body}
	r.Incarnation = d.incarnation("incarnation")
	r.Epoch = facet.Epoch(d.u64("epoch"))
	r.From, r.To = facet.Seq(d.u64("from")), facet.Seq(d.u64("to"))
	r.MaxBytes = d.u32("bound")
	if d.err == nil && (r.From == 0 || r.To != 0 && r.To < r.From || r.MaxBytes > MaxFetch) {
		d.fail("range")
	}
	return r, d.end("fetch")
}

// appendEntry appends one entry of an ENTRIES frame: length and encoded commit.
func appendEntry(dst []byte, c *facet.Commit) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.EncodedLen()))
	return c.AppendBinary(dst)
}

// decodeEntries reads the entries of one frame; they own their memory. seq is the
// one the first of them must have.
func decodeEntries(body []byte, id facet.Incarnation, seq facet.Seq, out []facet.Commit) ([]facet.Commit, error) {
	own := append([]byte(nil), body...)
	d := decoder{src: own}
	for len(d.src) > 0 {
		n := d.uvarint("length")
		if n > uint64(len(d.src)) {
			d.fail("length")
			break
		}
		c, err := facet.DecodeCommit(id, d.take("entry", int(n)))
		if err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
			break
		}
		if c.Seq != seq {
			d.fail("order of entries")
			break
		}
		seq++
		out = append(out, c)
	}
	return out, d.end("entries")
}

const renewLen = 8 + 8

func appendRenew(dst []byte, r *RenewRequest) []byte {
	dst = binary.BigEndian.AppendUint64(dst, r.Applied)
	return binary.BigEndian.AppendUint64(dst, uint64(r.Stamp))
}

func decodeRenew(body []byte) (r RenewRequest, err error) {
	d := decoder{src: body}
	r.Applied = d.u64("index")
	r.Stamp = time.Duration(d.u64("stamp"))
	return r, d.end("renew")
}

func appendGrant(dst []byte, g *Grant, err error) []byte {
	dst = appendOutcome(dst, err)
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.Stamp))
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.TTL))
	dst = binary.BigEndian.AppendUint64(dst, g.Apply)
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.Got))
	return binary.BigEndian.AppendUint64(dst, uint64(g.Answered))
}

func decodeGrant(body []byte) (g Grant, answer, err error) {
	d := decoder{src: body}
	answer = d.outcome()
	g.Stamp = time.Duration(d.u64("stamp"))
	ttl := d.u64("ttl")
	if ttl > math.MaxInt64 {
		d.fail("ttl")
	}
	g.TTL = time.Duration(ttl)
	g.Apply = d.u64("index")
	g.Got = time.Duration(d.u64("clock at receipt"))
	g.Answered = time.Duration(d.u64("clock at answer"))
	return g, answer, d.end("grant")
}

// checkCommands says whether commands fit one PROPOSE.
func checkCommands(cmds [][]byte) error {
	total := 0
	for _, c := range cmds {
		if len(c) > MaxCommand {
			return fmt.Errorf("%w: command of %d bytes, limit %d", ErrTooLong, len(c), MaxCommand)
		}
		total += len(c)
	}
	if len(cmds) == 0 || len(cmds) > MaxItems || total > maxProposal {
		return fmt.Errorf("%w: %d commands of %d bytes, limits %d and %d", ErrTooLong, len(cmds), total, MaxItems, maxProposal)
	}
	return nil
}

func appendCommands(dst []byte, cmds [][]byte) []byte {
	for _, c := range cmds {
		dst = binary.AppendUvarint(dst, uint64(len(c)))
		dst = append(dst, c...)
	}
	return dst
}

// decodeCommands gives commands that own their memory.
func decodeCommands(body []byte) ([][]byte, error) {
	d := decoder{src: append([]byte(nil), body...)}
	var cmds [][]byte
	for len(d.src) > 0 {
		n := d.uvarint("length")
		if n > MaxCommand || len(cmds) == MaxItems {
			d.fail("length or number")
			break
		}
		cmds = append(cmds, d.take("command", int(n)))
	}
	if d.err == nil {
		if err := checkCommands(cmds); err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return cmds, d.end("propose")
}

func appendResult(dst []byte, i int, result []byte, err error) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(i))
	dst = appendOutcome(dst, err)
	if err != nil {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(result)))
	return append(dst, result...)
}

func decodeResults(body []byte, out []ProposeResult, got func(int)) error {
	d := decoder{src: body}
	for len(d.src) > 0 {
		i := int(d.u16("number"))
		r := ProposeResult{Err: d.outcome()}
		if r.Err == nil {
			n := d.uvarint("length")
			if n > MaxCommand {
				d.fail("length")
				break
			}
			r.Result = append([]byte{}, d.take("result", int(n))...)
		}
		if i >= len(out) {
			d.fail("number")
		}
		if d.err != nil {
			break
		}
		out[i] = r
		got(i)
	}
	return d.end("result")
}

func appendOffer(dst []byte, o *SnapshotOffer) []byte {
	dst = append(dst, o.Incarnation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.Epoch))
	dst = o.Position.AppendBinary(dst)
	return binary.BigEndian.AppendUint32(dst, o.Pages)
}

func decodeOffer(body []byte) (o SnapshotOffer, err error) {
	d := decoder{src: body}
	o.Incarnation = d.incarnation("incarnation")
	o.Epoch = facet.Epoch(d.u64("epoch"))
	o.Position = d.position("position")
	o.Pages = d.u32("size")
	if d.err == nil {
		if err := o.check(); err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return o, d.end("offer")
}

func (o *SnapshotOffer) check() error {
	if o.Incarnation.IsZero() || o.Position.Seq == 0 || o.Position.Epoch == 0 || o.Position.Epoch > o.Epoch || o.Pages > facet.MaxPages {
		return fmt.Errorf("%w: snapshot of %v at %v in session %v with %d pages", ErrInvalid, o.Incarnation, o.Position, o.Epoch, o.Pages)
	}
	return nil
}

// decodePages reads a PAGES frame: the number of pages before it, and pages.
func decodePages(body []byte, total uint32) (before uint32, content []byte, err error) {
	d := decoder{src: body}
	before = d.u32("offset")
	content = d.src
	n := uint64(len(content) / facet.PageSize)
	if len(content)%facet.PageSize != 0 || n == 0 || n > snapshotPages || uint64(before)+n > uint64(total) {
		d.fail("pages")
	}
	d.src = nil
	return before, content, d.end("pages")
}

// decodeResume reads how many pages the receiver has already.
func decodeResume(body []byte) (before uint32, answer, err error) {
	d := decoder{src: body}
	answer = d.outcome()
	before = d.u32("offset")
	return before, answer, d.end("resume")
}

func decodeInstalled(body []byte) (base facet.Position, answer, err error) {
	d := decoder{src: body}
	answer = d.outcome()
	base = d.position("base")
	return base, answer, d.end("installed")
}

// remote is the other end as its greeting told.
func (g *greeting) remote() Remote {
	return Remote{Node: g.node, Boot: g.boot, Store: g.store}
}
