package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/facetd/facetd/facet"
)

// Cluster is what one node knows of the cluster. Its JSON is that of the HTTP
// API.
type Cluster struct {
	ID       string `json:"id"`
	Self     string `json:"self"`    // id of the node that answered
	Leader   string `json:"leader"`  // id of the node that leads placement, empty when nobody does
	Term     uint64 `json:"term"`    // of the Raft log
	Applied  uint64 `json:"applied"` // newest entry of the placement log at Self
	Facets   int    `json:"facets"`
	Replicas int    `json:"replicas"` // replication factor of new facets
	Nodes    []Node `json:"nodes"`    // sorted by id
}

// Node is one node of a Cluster.
type Node struct {
	ID      string `json:"id"`
	State   string `json:"state"` // alive, draining, decommissioning, suspect, gone
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
	API     string `json:"api"`
	Peer    string `json:"peer"`
	Zone    string `json:"zone"`
	Version string `json:"version"`
	BootID  string `json:"boot_id"`
	StoreID string `json:"store_id"`
	Owned   int    `json:"owned"` // facets it owns
	Held    int    `json:"held"`  // facets it keeps a copy of
	// LeaseAgeMillis is the time since its lease was granted; nil when it has
	// none, or only the leader knows.
	LeaseAgeMillis *float64 `json:"lease_age_ms"`
}

// Node finds a node by its id.
func (c *Cluster) Node(id string) (Node, bool) {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return Node{}, false
}

// OperationRequest says what StartOperation begins.
type OperationRequest struct {
	// Kind is drain, undrain, decommission, remove, rebalance or repair.
	Kind string `json:"kind"`
	// Node is the node it is about; empty for rebalance and repair.
	Node string `json:"node,omitempty"`
	// Rate is how many facets to move a second; 0 is the cluster's default.
	Rate int `json:"rate,omitempty"`
	// Force removes a node that still answers, and decommissions one although its
	// facets will have fewer copies than they should.
	Force bool `json:"force,omitempty"`
}

// OperationState is how far an Operation is.
type OperationState string

// The states of an operation. All but OperationRunning are final.
const (
	OperationRunning  OperationState = "running"
	OperationDone     OperationState = "done"
	OperationFailed   OperationState = "failed"
	OperationCanceled OperationState = "canceled"
)

// Operation is an operation on nodes or facets, as it was at one moment. Its JSON
// is that of the HTTP API.
type Operation struct {
	ID      string         `json:"id"`
	Kind    string         `json:"kind"`
	Node    string         `json:"node"`
	State   OperationState `json:"state"`
	Done    int            `json:"done"` // facets that are where they should be
	Total   int            `json:"total"`
	Failed  int            `json:"failed"` // facets to be tried again
	Rate    int            `json:"rate"`
	Message string         `json:"message"` // what it waits for, or why it ended
	Started time.Time      `json:"started"`
	Ended   *time.Time     `json:"ended"` // nil while it runs
}

// Cluster asks a node what it knows of the cluster.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	var cl Cluster
	err := c.operate(ctx, operateTry, http.MethodGet, "/v1/cluster", nil, &cl)
	return cl, wrapOp("look at the cluster", err)
}

// StartOperation begins an operation and returns at once. One of that kind on
// that node that runs already is returned instead, so it is safe to repeat.
func (c *Client) StartOperation(ctx context.Context, req OperationRequest) (Operation, error) {
	var op Operation
	err := c.operate(ctx, operateTry, http.MethodPost, "/v1/operations", req, &op)
	return op, wrapOp("start "+req.Kind, err)
}

// Operations lists the operations that run and the last ones that ended, newest
// first.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var body struct {
		Operations []Operation `json:"operations"`
	}
	err := c.operate(ctx, operateTry, http.MethodGet, "/v1/operations", nil, &body)
	return body.Operations, wrapOp("list operations", err)
}

// Operation looks at one operation; facet.ErrNotFound when it is not known any
// more, as after a change of the placement leader.
func (c *Client) Operation(ctx context.Context, id string) (Operation, error) {
	var op Operation
	err := c.operate(ctx, operateTry, http.MethodGet, "/v1/operations/"+url.PathEscape(id), nil, &op)
	return op, wrapOp("look at operation "+id, err)
}

// CancelOperation stops an operation where it is; a node whose drain or decommission
// is canceled is active again. One that has ended is left
// alone.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	err := c.operate(ctx, operateTry, http.MethodDelete, "/v1/operations/"+url.PathEscape(id), nil, nil)
	return wrapOp("cancel operation "+id, err)
}

// Move makes the node the facet's owner, and returns when it is. The facet must
// exist.
func (f *Facet) Move(ctx context.Context, node string) (Info, error) {
	return f.place(ctx, "move", http.MethodPost, "/move", map[string]string{"to": node})
}

// Pin keeps rebalancing from moving the facet away from its owner. With a node it
// is moved there first; "" pins it where it is.
func (f *Facet) Pin(ctx context.Context, node string) (Info, error) {
	var body any
	if node != "" {
		body = map[string]string{"node": node}
	}
	return f.place(ctx, "pin", http.MethodPut, "/pin", body)
}

// Unpin takes the pin off again.
func (f *Facet) Unpin(ctx context.Context) (Info, error) {
	return f.place(ctx, "unpin", http.MethodDelete, "/pin", nil)
}

// RecoverRequest says what Recover goes on from. Its JSON is that of the HTTP API.
type RecoverRequest struct {
	From string `json:"from"` // the node with the copy
	// Incarnation is the facet that lost its copies, as a dry run told it: where the name
	// leads elsewhere meanwhile nothing is done. Empty: whatever the name leads to.
	Incarnation string `json:"incarnation,omitempty"`
	DryRun      bool   `json:"dry_run,omitempty"` // only tell
}

// Recovery is what there is of a facet that is to go on from one copy. Its JSON is that
// of the HTTP API, but for the new facet.
type Recovery struct {
	Incarnation string         `json:"incarnation"` // that lost its copies
	From        string         `json:"from"`
	Position    string         `json:"position"`  // where the copy ends, as epoch.sequence
	Committed   uint64         `json:"committed"` // up to this sequence the copy knows what is committed
	SizeBytes   int64          `json:"size_bytes"`
	LastOwner   string         `json:"last_owner"` // that served it last; empty when that one gave it back
	Copies      []RecoveryCopy `json:"copies"`
	Replicas    int            `json:"replicas"` // nodes that will keep the new facet
	Refused     string         `json:"refused"`  // why it cannot be done; only of a dry run
	Recovered   *Info          `json:"-"`        // the new facet, once there is one
}

// RecoveryCopy is what one node keeps. Its JSON is that of the HTTP API.
type RecoveryCopy struct {
	Node      string `json:"node"`
	Problem   string `json:"problem,omitempty"` // why nothing is known of it
	Position  string `json:"position,omitempty"`
	Committed uint64 `json:"committed,omitempty"`
	Health    string `json:"health,omitempty"`
}

// Recover goes on from one surviving copy of a facet that lost most of its copies for
// good: it makes a new facet of that and leads the name to it. What only the others had
// is lost. It is refused while nothing need be lost, and may be repeated.
func (f *Facet) Recover(ctx context.Context, req RecoverRequest) (Recovery, error) {
	var j struct {
		Recovery
		Recovered *infoJSON `json:"recovered"`
	}
	err := f.client.operate(ctx, 0, http.MethodPost, f.path("/recover"), req, &j)
	if err == nil && j.Recovered != nil {
		var i Info
		i, err = j.Recovered.info()
		j.Recovery.Recovered = &i
	}
	return j.Recovery, f.wrap("recover", err)
}

func (f *Facet) place(ctx context.Context, what, method, path string, body any) (Info, error) {
	var j infoJSON
	err := f.client.operate(ctx, 0, method, f.path(path), body, &j)
	if err != nil {
		return Info{}, f.wrap(what, err)
	}
	i, err := j.info()
	return i, f.wrap(what, err)
}

func wrapOp(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

const (
	// operateTry bounds one node's answer to what it only has to look at or write
	// down; placing a facet may copy it first, and is bounded by the context only.
	operateTry = 10 * time.Second

	// operateFor bounds how long an operator's request is tried again when neither
	// its context nor Options.RetryFor does: longer than electing a leader takes.
	operateFor = 15 * time.Second

	// operatePauseMin and operatePauseMax bound the pause after all endpoints were
	// asked in vain: a person waits, but nobody leads faster for being asked.
	operatePauseMin = 20 * time.Millisecond
	operatePauseMax = 500 * time.Millisecond
)

// operate makes a management request that may be repeated: it follows redirects,
// goes on to the next endpoint when one does not answer within each (0: as long
// as ctx allows), and tries again while nobody leads. The answer is read into out
// unless that is nil.
func (c *Client) operate(ctx context.Context, each time.Duration, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	lasts := c.opt.RetryFor
	if lasts == 0 {
		lasts = operateFor
	}
	end := time.Now().Add(lasts)
	for try := 0; ; try++ {
		at := c.endpoints[try%len(c.endpoints)]
		err := c.operateAt(ctx, each, at.at.String()+path, method, body, out)
		if err == nil || !retryable(err) || ctx.Err() != nil {
			return err
		}
		if (try+1)%len(c.endpoints) != 0 {
			continue // not all were asked yet
		}
		pause := min(operatePauseMax, operatePauseMin<<min(try/len(c.endpoints), 10))
		pause = pause/2 + rand.N(pause/2)
		if time.Until(end) < pause {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-c.ctx.Done():
			timer.Stop()
			return errClientClosed
		}
	}
}

// retryable reports whether another node, or the same one later, may do what was
// asked.
func retryable(err error) bool {
	e := (*facet.Error)(nil)
	return errors.As(err, &e) && (e.Code.Class() == facet.Retry || e.Code.Class() == facet.Redirect)
}

// operateAt asks one node and those it names.
func (c *Client) operateAt(ctx context.Context, each time.Duration, target, method string, body []byte, out any) error {
	if each > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, each, errors.New("no answer in time"))
		defer cancel()
	}
	for range maxRedirects + 1 {
		resp, err := c.send(ctx, target, method, body)
		if err != nil {
			if e := (*facet.Error)(nil); errors.As(err, &e) {
				return err // no token: nobody was asked
			}
			return fmt.Errorf("%w: %w", facet.Errorf(facet.CodeUnavailable, "reach %s", target), err)
		}
		next := resp.Header.Get("Location")
		if resp.StatusCode == http.StatusTemporaryRedirect && next != "" {
			resp.Body.Close()
			to, err := resp.Request.URL.Parse(next)
			if err != nil {
				return facet.Errorf(facet.CodeInternal, "follow redirect to %.200q: %v", next, err)
			}
			target = to.String()
			continue
		}
		return readAnswer(resp, out)
	}
	return facet.Errorf(facet.CodeUnavailable, "more than %d redirects", maxRedirects)
}

func readAnswer(resp *http.Response, out any) error {
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return httpError(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxInfoBody)).Decode(out); err != nil {
		return facet.Errorf(facet.CodeUnavailable, "read answer: %v", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, target, method string, body []byte) (*http.Response, error) {
	tok, err := c.opt.token(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	handOn(ctx, req.Header)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(req)
}
