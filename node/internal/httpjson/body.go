package httpjson

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
)

// ErrTooLarge is a body longer than its limit.
var ErrTooLarge = errors.New("the body is too large")

// ErrBusy is a body for which there is no memory now.
var ErrBusy = errors.New("too many large requests at once")

// Budget bounds the bytes of bodies held at once. The zero Budget is
// DefaultBudget.
type Budget struct {
	Limit int64
	used  atomic.Int64
}

func (b *Budget) take(n int64) bool {
	limit := b.Limit
	if limit == 0 {
		limit = DefaultBudget
	}
	if b.used.Add(n) > limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Used is the number of bytes taken now.
func (b *Budget) Used() int64 { return b.used.Load() }

// Body is a request body in memory, and what it took from the budget.
type Body struct {
	Bytes  []byte
	spare  []byte // of Copy
	buf    *[]byte
	taken  int64
	budget *Budget
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, firstRead); return &b }}

// ReadBody reads the body of r, at most limit bytes, growing with what really
// arrives. Close must be called when nothing refers to the bytes any more.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, budget *Budget) (*Body, error) {
	if r.ContentLength > limit {
		return nil, ErrTooLarge
	}
	body := &Body{buf: buffers.Get().(*[]byte), budget: budget}
	err := body.read(w, r, limit)
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

func (b *Body) read(w http.ResponseWriter, r *http.Request, limit int64) error {
	rc := http.NewResponseController(w)
	src := http.MaxBytesReader(w, r.Body, limit)
	buf := (*b.buf)[:0]
	if !b.grow(int64(cap(buf))) {
		return ErrBusy
	}
	// A recorder in a test has no deadline; a deadline left behind would end the
	// watch for a peer that goes away.
	defer rc.SetReadDeadline(time.Time{})
	for {
		if len(buf) == cap(buf) {
			if !b.grow(int64(cap(buf))) {
				return ErrBusy
			}
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
			*b.buf = buf
		}
		_ = rc.SetReadDeadline(time.Now().Add(stallTimeout))
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			b.Bytes = buf
			return nil
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return ErrTooLarge
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return facet.Errorf(facet.CodeTimeout, "the body stopped or came too slowly, after %d bytes; nothing was done", len(buf))
		case err != nil:
			return facet.Errorf(facet.CodeBadRequest, "the body broke off or is malformed, after %d bytes: %v", len(buf), err)
		}
	}
}

func (b *Body) grow(n int64) bool {
	if !b.budget.take(n) {
		return false
	}
	b.taken += n
	return true
}

// Copy gives the bytes for a decoder that writes over what it reads, while Bytes
// stay as they came. Each call takes back what an earlier one gave.
func (b *Body) Copy() ([]byte, error) {
	if b.spare == nil {
		if !b.grow(int64(len(b.Bytes))) {
			return nil, ErrBusy
		}
		b.spare = make([]byte, len(b.Bytes))
	}
	copy(b.spare, b.Bytes)
	return b.spare, nil
}

// Close gives the memory back. It may be called twice.
func (b *Body) Close() {
	if b.buf == nil {
		return
	}
	b.budget.used.Add(-b.taken)
	if cap(*b.buf) <= keepBuffer {
		buffers.Put(b.buf)
	}
	b.buf, b.Bytes, b.spare, b.taken = nil, nil, nil, 0
}

// Stall is a request body or an answer of any length whose peer must keep it
// moving: every read and write gets its own deadline.
type Stall struct {
	R  io.Reader
	W  io.Writer
	rc *http.ResponseController
}

// NewStall watches over the body of r and the answer w.
func NewStall(w http.ResponseWriter, r *http.Request) *Stall {
	return &Stall{R: r.Body, W: w, rc: http.NewResponseController(w)}
}

func (s *Stall) Read(p []byte) (int, error) {
	_ = s.rc.SetReadDeadline(time.Now().Add(stallTimeout))
	return s.R.Read(p)
}

func (s *Stall) Write(p []byte) (int, error) {
	_ = s.rc.SetWriteDeadline(time.Now().Add(stallTimeout))
	return s.W.Write(p)
}
