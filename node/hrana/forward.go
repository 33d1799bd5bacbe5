package hrana

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/forward"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// Locator is a service.Service of a cluster: it knows, from memory, where facets
// are. Without one nothing is carried to other nodes.
type Locator interface {
	// Owner tells who owns the facet as far as this node has heard: the owner's API
	// address (host:port or URL), whether that is this node, and since which epoch.
	// at is empty where the facet does not exist, or nobody owns it now. It never
	// blocks, asks nobody and makes nothing. What it says may be behind: Submit
	// decides.
	Owner(name facet.Name) (at string, local bool, epoch facet.Epoch)
}

// Stock clients of libSQL break on redirects, so a node that is not the owner
// carries the whole HTTP request to the owner and the answer back. It learns that
// it is not the owner in two ways: from the Locator, before anything was done, or
// from the service's not_owner, when the table is behind, or the request was for a
// facet that did not exist and the node that was asked to create it chose another
// as its owner. The second is as good as long as no statement of the request was
// executed: the body is still there, and the stream's new state is dropped. After
// that it is an error of the one statement.
//
// A stream stays where its transaction was: one that the facet has left is served
// here to the end, so that its client hears what became of it, and its statements
// do not run outside of it somewhere else.

// serve answers a request with a body: here, or through the owner. answer returns
// not_owner when nothing was done and nothing was answered.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, name facet.Name, decode func([]byte) (*pipelineBody, error), answer func(http.ResponseWriter, *session, *pipelineBody) *facet.Error) {
	readOnly := false
	var err error
	if h.opts.Authorize != nil {
		if readOnly, err = h.opts.Authorize(r, name); err != nil {
			Fail(w, err)
			return
		}
	}
	body, err := httpjson.ReadBody(w, r, MaxBodyLen, h.budget, string(name.Tenant))
	if err != nil {
		Fail(w, err)
		return
	}
	defer body.Close()
	hint := "" // the owner, by the service's word
	for wait := (patience{until: time.Now().Add(forwardFor)}); ; {
		src := body.Bytes
		if h.carries() {
			src, err = body.Copy() // the body may have to go on as it came
		}
		var req *pipelineBody
		if err == nil {
			req, err = decode(src)
		}
		if err != nil {
			Fail(w, err)
			return
		}
		to := hint
		if to == "" {
			to = h.elsewhere(name, req.baton)
		}
		if to == "" {
			ss, err := h.open(r, name, req.baton)
			if err != nil {
				Fail(w, err)
				return
			}
			ss.readOnly = readOnly
			moved := answer(w, ss, req)
			if moved == nil {
				return
			}
			if hint = moved.Owner; hint != "" {
				continue
			}
			err = moved
			if !wait.again(r.Context()) {
				Fail(w, unreached(name, err))
				return
			}
			continue
		}
		if err = h.forward.Send(w, r, body.Bytes, forward.URL(r, to)); err == nil {
			return
		}
		hint = ""
		if !errors.Is(err, forward.ErrUnsent) || !wait.again(r.Context()) {
			Fail(w, unreached(name, err))
			return
		}
	}
}

// carries reports whether requests may be for other nodes.
func (h *Handler) carries() bool { return h.locator != nil && h.forward != nil }

// elsewhere is the address to carry a request to, empty when it is answered here.
func (h *Handler) elsewhere(name facet.Name, baton []byte) string {
	if !h.carries() {
		return ""
	}
	at, local, _ := h.locator.Owner(name)
	if local || at == "" {
		return ""
	}
	if b, ok := h.signer.open(baton, name); ok && h.table.holds(b) {
		return ""
	}
	return at
}

// unreached is what the client is told when its request could not be carried.
func unreached(name facet.Name, err error) error {
	code := facet.CodeUnavailable
	switch {
	case errors.Is(err, forward.ErrLost):
		code = facet.CodeUnknownOutcome
	case errors.Is(err, forward.ErrBusy):
		code = facet.CodeOverloaded
	}
	return facet.Errorf(code, "carry the request to the owner of %v: %v", name, err)
}

// baseURL is where the client is to send further requests of its stream: to the
// owner, when this request came through another node.
func (h *Handler) baseURL(r *http.Request, name facet.Name) string {
	if h.opts.BaseURL != nil {
		return h.opts.BaseURL(r, name)
	}
	if h.locator == nil || forward.Hops(r) == 0 {
		return ""
	}
	at, local, _ := h.locator.Owner(name)
	if !local || at == "" {
		return ""
	}
	return forward.URL(r, at) + "/v1/db/" + name.String() + "/"
}

// patience is the pauses of one request that waits for its facet's next owner.
type patience struct {
	until time.Time
	pause time.Duration
}

// again waits a little, or is false when it was long enough.
func (p *patience) again(ctx context.Context) bool {
	p.pause = min(max(2*p.pause, forwardPauseMin), forwardPauseMax)
	if time.Now().Add(p.pause).After(p.until) {
		return false
	}
	t := time.NewTimer(p.pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
