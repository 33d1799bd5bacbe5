package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/facetd/facetd/facet"
)

// The body of TypeRequest. The flags of the frame tell which of the optional
// parts are there.
//
//	str      tenant
//	str      facet
//	16 bytes transaction id              FlagTx
//	16 bytes client id of the key        FlagKey
//	 8 bytes number of the key           FlagKey
//	 1 byte  how it reads                FlagRead
//	           bits 0-1 mode: 0 owner, 1 quorum, 2 follower
//	           bit 2 the answer is to have a bookmark
//	           bit 3 a bookmark follows
//	32 bytes bookmark                    bit 3
//	uvarint  timeout in microseconds, 0 for the server's limit
//	uvarint  number of steps, then for each
//	  1 byte   bits 0-1 kind, bit 2 no rows, bit 3 names, bit 4 condition
//	  str      SQL
//	  uvarint  number of arguments
//	  str      arguments, encoded values
//	  str…     one name per argument     bit 3
//	  condition                          bit 4
//	25 bytes trace                       FlagTrace
//
// A condition is one byte of operator, then a uvarint step (ok, error), one
// condition (not), or a uvarint count and that many conditions (and, or).
const (
	readModeMask = 3
	readBookmark = 1 << 2
	readAfter    = 1 << 3
	readBits     = readModeMask | readBookmark | readAfter

	stepKindMask  = 3
	stepNoRows    = 1 << 2
	stepNames     = 1 << 3
	stepCondition = 1 << 4
	stepBits      = stepKindMask | stepNoRows | stepNames | stepCondition
)

// AppendRequest appends the whole frame of r. It checks nothing: a request that
// breaks a limit is refused where it is decoded.
func AppendRequest(dst []byte, id uint32, r *facet.Request) []byte {
	fl := Flags(0)
	if r.KeepTx {
		fl |= FlagKeepTx
	}
	if r.Atomic {
		fl |= FlagAtomic
	}
	if r.ReadOnly {
		fl |= FlagReadOnly
	}
	if !r.Tx.IsZero() {
		fl |= FlagTx
	}
	if !r.Key.IsZero() {
		fl |= FlagKey
	}
	if r.Read != facet.ReadOwner || r.Bookmark || !r.After.IsZero() {
		fl |= FlagRead
	}
	if !r.Trace.IsZero() {
		fl |= FlagTrace
	}
	dst, at := BeginFrame(dst, TypeRequest, fl, id)
	dst = facet.AppendStr(dst, string(r.Name.Tenant))
	dst = facet.AppendStr(dst, r.Name.Facet)
	if fl&FlagTx != 0 {
		dst = append(dst, r.Tx[:]...)
	}
	if fl&FlagKey != 0 {
		dst = append(dst, r.Key.Client[:]...)
		dst = binary.BigEndian.AppendUint64(dst, r.Key.N)
	}
	if fl&FlagRead != 0 {
		dst = appendRead(dst, r)
	}
	dst = binary.AppendUvarint(dst, timeoutMicros(r.Timeout))
	dst = binary.AppendUvarint(dst, uint64(len(r.Steps)))
	for i := range r.Steps {
		dst = appendStep(dst, &r.Steps[i])
	}
	if fl&FlagTrace != 0 {
		dst = facet.AppendTrace(dst, r.Trace)
	}
	return EndFrame(dst, at)
}

// WithoutTrace is the frame of a request as a node understands it that knows no
// traces: it has FeatureTrace not. The frame may not be used after that.
func WithoutTrace(frame []byte) []byte {
	if Flags(frame[13])&FlagTrace == 0 {
		return frame
	}
	frame = frame[:len(frame)-facet.TraceLen]
	frame[13] &^= byte(FlagTrace)
	return EndFrame(frame, 0)
}

func appendRead(dst []byte, r *facet.Request) []byte {
	bits := byte(r.Read) & readModeMask
	if r.Bookmark {
		bits |= readBookmark
	}
	if r.After.IsZero() {
		return append(dst, bits)
	}
	return r.After.AppendBinary(append(dst, bits|readAfter))
}

func decodeRead(d *decoder, r *facet.Request) {
	bits := d.byte("read")
	r.Read = facet.ReadMode(bits & readModeMask)
	r.Bookmark = bits&readBookmark != 0
	if bits&^readBits != 0 || r.Read > facet.ReadFollower {
		d.fail("read")
	}
	if bits&readAfter == 0 || d.err != nil {
		return
	}
	var err error
	if r.After, d.src, err = facet.DecodeBookmark(d.src); err != nil || !r.After.Valid() {
		d.fail("bookmark")
	}
}

// maxTimeout is the longest timeout in whole microseconds.
const maxTimeout = uint64(math.MaxInt64 / time.Microsecond)

// timeoutMicros rounds up, so that a short timeout does not become none.
func timeoutMicros(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return min(uint64((d-1)/time.Microsecond)+1, maxTimeout)
}

func appendStep(dst []byte, s *facet.Step) []byte {
	bits := byte(s.Kind) & stepKindMask
	if s.NoRows {
		bits |= stepNoRows
	}
	if s.Names != nil {
		bits |= stepNames
	}
	if s.Condition != nil {
		bits |= stepCondition
	}
	dst = append(dst, bits)
	dst = facet.AppendStr(dst, s.SQL)
	dst = binary.AppendUvarint(dst, uint64(s.NArgs))
	dst = facet.AppendStr(dst, []byte(s.Args))
	for _, n := range s.Names {
		dst = facet.AppendStr(dst, n)
	}
	if s.Condition != nil {
		dst = appendCondition(dst, s.Condition)
	}
	return dst
}

func appendCondition(dst []byte, c *facet.Condition) []byte {
	dst = append(dst, byte(c.Op))
	switch c.Op {
	case facet.CondOK, facet.CondError:
		dst = binary.AppendUvarint(dst, uint64(c.Step))
	case facet.CondNot:
		if len(c.Conds) > 0 {
			dst = appendCondition(dst, &c.Conds[0])
		}
	case facet.CondAnd, facet.CondOr:
		dst = binary.AppendUvarint(dst, uint64(len(c.Conds)))
		for i := range c.Conds {
			dst = appendCondition(dst, &c.Conds[i])
		}
	}
	return dst
}

// Interner remembers the strings one connection sees again and again: facet and
// parameter names. Each table is bounded by maxInterned. Not for concurrent use.
type Interner struct {
	names  map[string]facet.Name
	params map[string]string
}

// name reads two strs, tenant and facet, as a checked Name. The key is their
// encoded form, so a name that was checked once costs one look-up.
func (in *Interner) name(d *decoder) (facet.Name, error) {
	whole := d.src
	tenant := d.str("tenant", facet.MaxTenantLen)
	name := d.str("facet", facet.MaxFacetLen)
	if d.err != nil {
		return facet.Name{}, d.err
	}
	key := whole[:len(whole)-len(d.src)]
	if n, ok := in.names[string(key)]; ok {
		return n, nil
	}
	n, err := facet.NewName(string(tenant), string(name))
	if err != nil {
		return n, err
	}
	if in.names == nil {
		in.names = make(map[string]facet.Name)
	}
	forgetOne(in.names)
	in.names[string(key)] = n
	return n, nil
}

func (in *Interner) param(b []byte) string {
	if s, ok := in.params[string(b)]; ok {
		return s
	}
	if in.params == nil {
		in.params = make(map[string]string)
	}
	forgetOne(in.params)
	s := string(b)
	in.params[s] = s
	return s
}

// forgetOne makes room in a full table. Which entry goes does not matter: a wrong
// guess costs one small allocation.
func forgetOne[V any](m map[string]V) {
	if len(m) < maxInterned {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}

// Scratch is memory a decoded request points into, besides the body. It goes
// with the request and is used again with it.
type Scratch struct {
	names []string
	conds int
}

// Trim lets go of memory that one unusual request made large.
func (sc *Scratch) Trim() {
	if cap(sc.names) > 256 {
		sc.names = nil
	}
}

// DecodeRequest reads the body of a TypeRequest frame into r, whose Steps are
// used again. All byte slices of r alias body. The error is a *facet.Error to
// answer the request with: the frame itself was sound.
func DecodeRequest(f Frame, r *facet.Request, sc *Scratch, in *Interner) error {
	steps := r.Steps[:0]
	*r = facet.Request{Steps: steps}
	sc.names, sc.conds = sc.names[:0], 0
	if f.Flags&^requestFlags != 0 {
		return badRequest("unknown flags %#x", uint8(f.Flags&^requestFlags))
	}
	r.KeepTx = f.Flags&FlagKeepTx != 0
	r.Atomic = f.Flags&FlagAtomic != 0
	r.ReadOnly = f.Flags&FlagReadOnly != 0

	d := decoder{src: f.Body}
	name, err := in.name(&d)
	if err != nil {
		if _, ok := err.(*facet.Error); ok {
			return err
		}
		return badRequest("%v", err)
	}
	r.Name = name
	if f.Flags&FlagTx != 0 {
		copy(r.Tx[:], d.bytes("transaction id", len(r.Tx)))
	}
	if f.Flags&FlagKey != 0 {
		copy(r.Key.Client[:], d.bytes("key", len(r.Key.Client)))
		if b := d.bytes("key", 8); b != nil {
			r.Key.N = binary.BigEndian.Uint64(b)
		}
	}
	if f.Flags&FlagRead != 0 {
		decodeRead(&d, r)
	}
	us := d.uvarint("timeout")
	if us > maxTimeout {
		d.fail("timeout")
	}
	r.Timeout = time.Duration(us) * time.Microsecond
	n := d.uvarint("number of steps")
	switch {
	case d.err != nil:
		return badRequest("%v", d.err)
	case n > facet.MaxSteps:
		return overLimit("steps", n, facet.MaxSteps)
	}
	for range n {
		steps = append(steps, facet.Step{})
		if err := decodeStep(&d, &steps[len(steps)-1], len(steps)-1, sc, in); err != nil {
			r.Steps = steps[:0]
			return err
		}
	}
	r.Steps = steps
	if f.Flags&FlagTrace != 0 {
		var ok bool
		if r.Trace, ok = facet.DecodeTrace(d.bytes("trace", facet.TraceLen)); !ok {
			return badRequest("bad trace")
		}
	}
	if len(d.src) != 0 {
		return badRequest("%d bytes after the last step", len(d.src))
	}
	if !r.Key.IsZero() && (!r.Tx.IsZero() || r.KeepTx || !r.Atomic && n != 1) {
		return badRequest("an idempotency key needs an atomic request or a single step, outside a transaction")
	}
	return nil
}

func decodeStep(d *decoder, s *facet.Step, index int, sc *Scratch, in *Interner) error {
	bits := d.byte("step")
	if bits&^stepBits != 0 {
		return badRequest("step %d: unknown bits %#x", index, bits&^stepBits)
	}
	s.Kind = facet.StepKind(bits & stepKindMask)
	if s.Kind > facet.StepDescribe {
		return badRequest("step %d: unknown kind %d", index, s.Kind)
	}
	s.NoRows = bits&stepNoRows != 0
	sqlLen := d.uvarint("SQL length")
	if sqlLen > facet.MaxSQLLen {
		return overLimit("sql_bytes", sqlLen, facet.MaxSQLLen)
	}
	s.SQL = d.bytes("SQL", int(sqlLen))
	nargs := d.uvarint("number of arguments")
	if nargs > facet.MaxArgs {
		return overLimit("arguments", nargs, facet.MaxArgs)
	}
	s.NArgs = int(nargs)
	args := d.str("arguments", MaxFrame)
	if d.err != nil {
		return badRequest("step %d: %v", index, d.err)
	}
	s.Args = args
	if err := checkValues(args, s.NArgs); err != nil {
		return badRequest("step %d: %v", index, err)
	}
	if bits&stepNames != 0 {
		if len(sc.names)+s.NArgs > MaxNames {
			return overLimit("names", uint64(len(sc.names)+s.NArgs), MaxNames)
		}
		from := len(sc.names)
		for range s.NArgs {
			b := d.str("parameter name", maxParamName)
			if d.err != nil {
				return badRequest("step %d: %v", index, d.err)
			}
			sc.names = append(sc.names, in.param(b))
		}
		s.Names = sc.names[from:len(sc.names):len(sc.names)]
		if s.Names == nil {
			s.Names = []string{}
		}
	}
	if bits&stepCondition != 0 {
		s.Condition = new(facet.Condition)
		if err := decodeCondition(d, s.Condition, index, 1, sc); err != nil {
			return err
		}
	}
	return nil
}

// checkValues walks vs, so that whoever runs the request may trust its count.
func checkValues(vs facet.Values, want int) error {
	n := 0
	for len(vs) > 0 {
		_, rest, err := vs.Next()
		if err != nil {
			return err
		}
		n, vs = n+1, rest
	}
	if n != want {
		return fmt.Errorf("%d arguments announced, %d there", want, n)
	}
	return nil
}

func decodeCondition(d *decoder, c *facet.Condition, index, depth int, sc *Scratch) error {
	if depth > facet.MaxConditionDepth {
		return overLimit("condition_depth", uint64(depth), facet.MaxConditionDepth)
	}
	if sc.conds++; sc.conds > MaxConditions {
		return overLimit("conditions", uint64(sc.conds), MaxConditions)
	}
	c.Op = facet.CondOp(d.byte("condition"))
	switch c.Op {
	case facet.CondOK, facet.CondError:
		n := d.uvarint("condition")
		if d.err == nil && n >= uint64(index) {
			return badRequest("step %d: condition names step %d, which does not run before it", index, n)
		}
		c.Step = int(n)
	case facet.CondNot:
		c.Conds = make([]facet.Condition, 1)
	case facet.CondAnd, facet.CondOr:
		n := d.uvarint("condition")
		if n > uint64(MaxConditions-sc.conds) || n > uint64(len(d.src)) {
			return overLimit("conditions", n, MaxConditions)
		}
		c.Conds = make([]facet.Condition, n)
	case facet.CondAutocommit:
	default:
		d.fail("condition")
	}
	if d.err != nil {
		return badRequest("step %d: %v", index, d.err)
	}
	for i := range c.Conds {
		if err := decodeCondition(d, &c.Conds[i], index, depth+1, sc); err != nil {
			return err
		}
	}
	return nil
}

func badRequest(format string, args ...any) *facet.Error {
	return facet.Errorf(facet.CodeBadRequest, "decode request: "+format, args...)
}

func overLimit(name string, got, limit uint64) *facet.Error {
	e := facet.Errorf(facet.CodeLimit, "decode request: %s: %d, limit %d", name, got, limit)
	e.Limit = name
	return e
}
