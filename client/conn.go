package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// conn is one native connection to a node.
//
// Requests live in slots; the id on the wire is the slot's number plus one. A
// slot is taken until the last frame of the answer came, also when the caller
// has left: then it holds nil and what comes is dropped.
type conn struct {
	node  *node
	wire  *wire.Conn
	sem   chan struct{} // one token per request in flight
	large chan struct{} // held while a large request is queued
	limit uint64        // longest request body the node accepts
	using atomic.Int32  // slots taken; changes with mu held

	mu      sync.Mutex
	slots   []*call
	free    []uint32
	closing bool        // the node said go away, or the token is about to end: no new requests
	renewal *time.Timer // retire; nil where the token is used as long as it is good
	err     error       // the connection is over
	hello   wire.HelloOK
	ready   chan struct{} // closed by the hello answer
}

// dial connects to the node and shakes hands.
func dial(ctx context.Context, n *node) (*conn, error) {
	o := &n.client.opt
	tok, err := o.token(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := o.Dial(ctx, "tcp", n.at.host)
	if err != nil {
		return nil, err
	}
	if n.at.tls {
		nc, err = handshake(ctx, nc, n.at, o.TLS)
		if err != nil {
			return nil, err
		}
	}
	early, err := upgrade(ctx, nc, n.at, tok)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := &conn{
		node: n, ready: make(chan struct{}), large: make(chan struct{}, 1),
		wire: wire.NewConn(nc, early, wire.ConnConfig{PingInterval: o.PingInterval}),
	}
	c.wire.End(wire.AppendHello(c.wire.Begin(), wire.Hello{
		VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Software: o.Software,
	}))
	stop := context.AfterFunc(n.client.ctx, func() { c.wire.Close(errClientClosed) })
	n.client.group.Go(func() {
		defer stop()
		c.over(c.wire.Run(c.frame))
	})
	select {
	case <-c.ready:
		c.renewBefore(tok)
		return c, nil
	case <-c.wire.Done():
		return nil, c.cause()
	case <-ctx.Done():
		c.wire.Close(context.Cause(ctx))
		return nil, context.Cause(ctx)
	}
}

// upgrade asks for the native protocol over HTTP. early is what the node sent
// after its answer.
func upgrade(ctx context.Context, nc net.Conn, at endpoint, tok string) (early []byte, err error) {
	if d, ok := ctx.Deadline(); ok {
		nc.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", wire.Path, at.host, wire.Protocol)
	if tok != "" {
		if strings.ContainsAny(tok, "\r\n\x00") {
			return nil, facet.Errorf(facet.CodeUnauthorized, "the token holds a line break")
		}
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", tok)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(nc, b.String()); err != nil {
		return nil, err
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, fmt.Errorf("read answer to upgrade: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, httpError(resp)
	}
	if !stop() && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	nc.SetDeadline(time.Time{})
	early, _ = br.Peek(br.Buffered())
	return early, nil
}

// httpError makes an error of an HTTP answer that is not a success.
func httpError(resp *http.Response) error {
	var body struct {
		Code    string          `json:"code"`
		Message string          `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err == nil && json.Unmarshal(raw, &body) == nil {
		if body.Code == "" && len(body.Error) > 0 && body.Error[0] == '{' {
			json.Unmarshal(body.Error, &body) // a nested error: same fields
		}
		if code, ok := codeByName[body.Code]; ok {
			return &facet.Error{Code: code, Message: body.Message, Request: resp.Header.Get("X-Request-Id")}
		}
	}
	code := facet.CodeInternal
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		code = facet.CodeUnauthorized
	case http.StatusForbidden:
		code = facet.CodeForbidden
	case http.StatusNotFound:
		code = facet.CodeNotFound
	case http.StatusTooManyRequests:
		code = facet.CodeOverloaded
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		code = facet.CodeUnavailable
	case http.StatusBadRequest, http.StatusUpgradeRequired:
		code = facet.CodeBadRequest
	}
	text := body.Message
	if text == "" {
		text = strings.TrimSpace(string(raw[:min(len(raw), 200)]))
	}
	if code == facet.CodeBadRequest && strings.Contains(text, "HTTP request to an HTTPS server") {
		return facet.Errorf(code, "the node speaks TLS; write its address as https://…")
	}
	e := facet.Errorf(code, "HTTP %s: %s", resp.Status, text)
	e.Request = resp.Header.Get("X-Request-Id")
	return e
}

var codeByName = func() map[string]facet.Code {
	m := make(map[string]facet.Code)
	for c := facet.Code(1); c < 256; c++ {
		if c.Known() {
			m[c.String()] = c
		}
	}
	return m
}()

// frame handles one frame of the node, in the reading goroutine.
func (c *conn) frame(f wire.Frame) error {
	select {
	case <-c.ready:
	default:
		return c.greeted(f)
	}
	switch f.Type {
	case wire.TypeResponse:
		p, err := wire.DecodeResponse(f)
		if err != nil {
			return err
		}
		return c.deliver(f.ID, p)
	case wire.TypeError:
		e, err := facet.DecodeError(f.Body)
		if err != nil {
			return err
		}
		return c.finish(f.ID, e)
	case wire.TypeGoAway:
		return c.goAway(f)
	case wire.TypePong:
		return c.finish(f.ID, nil)
	}
	return fmt.Errorf("%w: a node does not send %v frames", wire.ErrProtocol, f.Type)
}

func (c *conn) greeted(f wire.Frame) error {
	switch f.Type {
	case wire.TypeHelloOK:
	case wire.TypeGoAway, wire.TypeError:
		e, err := facet.DecodeError(f.Body)
		if err != nil {
			return err
		}
		return e
	default:
		return fmt.Errorf("%w: %v frame before the hello answer", wire.ErrProtocol, f.Type)
	}
	h, err := wire.DecodeHelloOK(f.Body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.hello, c.limit = h, h.MaxFrame
	c.sem = make(chan struct{}, min(h.MaxInFlight, 1<<20))
	c.mu.Unlock()
	c.wire.SetMaxFrame(wire.MaxFrame)
	close(c.ready)
	return nil
}

func (c *conn) goAway(f wire.Frame) error {
	e, err := facet.DecodeError(f.Body)
	if err != nil {
		return err
	}
	c.retire()
	if e.Code.Class() == facet.Definite && e.Code != facet.CodeUnauthorized {
		return e // the node ends the connection for something we did
	}
	return nil // what is under way is answered, also when the token is not good any more
}

// deliver gives a part of an answer to its call. The copy is made under the
// lock, so that a caller who leaves takes his buffers along at once.
func (c *conn) deliver(id uint32, p wire.Part) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, err := c.slot(id)
	if err != nil {
		return err
	}
	if k != nil {
		k.bytes += len(p.Items)
		switch {
		case k.bytes > c.node.client.opt.MaxResult:
			k.err = &facet.Error{Code: facet.CodeLimit, Limit: "client_result_bytes",
				Message: fmt.Sprintf("the answer is longer than Options.MaxResult, %d bytes", c.node.client.opt.MaxResult)}
			k.final = true
			c.slots[id-1] = nil
			if p.More {
				c.cancelLocked(id)
			}
			k.signal()
			if !p.More {
				c.release(id)
			}
			return nil
		case k.parts == 0:
			k.first = append(k.first[:0], p.Items...)
		default:
			k.more = append(k.more, append([]byte(nil), p.Items...))
		}
		k.parts++
		if !p.More {
			k.final, k.tx, k.pos, k.seen = true, p.Tx, p.Position, p.Bookmark
		}
		k.signal()
	}
	if !p.More {
		c.release(id)
	}
	return nil
}

// finish gives an error, or the answer to a ping, to its call.
func (c *conn) finish(id uint32, e *facet.Error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, err := c.slot(id)
	if err != nil {
		return err
	}
	if k != nil {
		if e != nil {
			e.Request = k.req.Trace.String()
			k.err = e
		}
		k.final = true
		k.signal()
	}
	c.release(id)
	return nil
}

// slot finds the call of an id; nil when its caller has left.
func (c *conn) slot(id uint32) (*call, error) {
	if id == 0 || int(id) > len(c.slots) || c.slots[id-1] == vacant {
		return nil, fmt.Errorf("%w: answer to request %d, which was not asked", wire.ErrProtocol, id)
	}
	return c.slots[id-1], nil
}

// vacant marks a slot that is free: an answer for it is a fault of the node.
var vacant = new(call)

// release makes the slot free for another request.
func (c *conn) release(id uint32) {
	c.slots[id-1] = vacant
	c.free = append(c.free, id)
	left := c.using.Add(-1)
	<-c.sem
	if c.closing && left == 0 {
		c.wire.Finish(nil)
	}
}

// send queues the call's request. An error means that nothing of it left.
func (c *conn) send(ctx context.Context, k *call) error {
	if uint64(len(k.frame)-wire.HeaderLen) > c.limit {
		e := facet.Errorf(facet.CodeLimit, "the request has %d bytes, limit %d", len(k.frame)-wire.HeaderLen, c.limit)
		e.Limit = "request_bytes"
		return e
	}
	select {
	case c.sem <- struct{}{}:
	default:
		select {
		case c.sem <- struct{}{}:
		case <-c.wire.Done():
			return c.cause()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if len(k.frame) >= largeFrame {
		select {
		case c.large <- struct{}{}:
		case <-c.wire.Done():
			<-c.sem
			return c.cause()
		case <-ctx.Done():
			<-c.sem
			return context.Cause(ctx)
		}
		defer func() { <-c.large }()
		if err := c.wire.WaitPending(ctx, maxQueued); err != nil {
			<-c.sem
			return err
		}
	}
	if c.hello.Features&wire.FeatureTrace == 0 {
		k.frame = wire.WithoutTrace(k.frame)
	}
	k.resetAnswer()
	c.mu.Lock()
	if c.err != nil || c.closing && k.req.Tx.IsZero() {
		err := c.err
		c.mu.Unlock()
		<-c.sem
		if err == nil {
			err = errGoingAway
		}
		return err
	}
	var id uint32
	if n := len(c.free); n > 0 {
		id, c.free = c.free[n-1], c.free[:n-1]
		c.slots[id-1] = k
	} else {
		c.slots = append(c.slots, k)
		id = uint32(len(c.slots))
	}
	c.using.Add(1)
	k.conn, k.slot = c, id
	c.mu.Unlock()
	wire.StampFrame(k.frame, id)
	if err := c.wire.Send(k.frame); err != nil {
		// Nothing was queued. The connection is over: nobody else uses the slot.
		c.mu.Lock()
		if int(id) <= len(c.slots) {
			c.slots[id-1] = nil
		}
		c.mu.Unlock()
		return err
	}
	return nil
}

// await waits for the answer to k: its first part, or all of it. An error of the
// context leaves the request to itself, after telling the node.
func (c *conn) await(ctx context.Context, k *call, whole bool) error {
	for {
		select {
		case <-k.wake:
		default:
			if ctx.Done() == nil {
				<-k.wake
				break
			}
			select {
			case <-k.wake:
			case <-ctx.Done():
				if c.abandon(k) {
					return context.Cause(ctx)
				}
			}
		}
		c.mu.Lock()
		done := k.final || !whole && k.parts > 0
		err := k.err
		c.mu.Unlock()
		if done {
			return err
		}
	}
}

// abandon takes the call out of its slot, so that the caller may free it. It is
// false when the answer is complete.
func (c *conn) abandon(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.final {
		return false
	}
	k.final = true
	c.slots[k.slot-1] = nil
	c.cancelLocked(k.slot)
	return true
}

// cancelLocked tells the node to give the request up. A failure means that the
// connection is over, which does the same.
func (c *conn) cancelLocked(id uint32) {
	c.wire.End(wire.AppendEmpty(c.wire.Begin(), wire.TypeCancel, id))
}

// over ends every call of the connection.
func (c *conn) over(err error) {
	if err == nil {
		err = wire.ErrClosed
	}
	c.mu.Lock()
	c.err = err
	if c.renewal != nil {
		c.renewal.Stop()
	}
	for i, k := range c.slots {
		if k != nil && k != vacant {
			k.err, k.isLost, k.final = err, true, true
			k.signal()
		}
		c.slots[i] = nil
	}
	c.mu.Unlock()
	c.node.leave(c)
	if errors.Is(err, wire.ErrPeerSilent) {
		c.node.suspect(err)
	}
}

func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if err := c.wire.Err(); err != nil {
		return err
	}
	return wire.ErrClosed
}

// usable reports whether new requests may be sent.
func (c *conn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.closing
}

// alive reports whether the connection is not over.
func (c *conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

var errGoingAway = fmt.Errorf("%w: the node is going away", wire.ErrClosed)
