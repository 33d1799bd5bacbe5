package httpapi

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// move answers POST /v1/facets/T/F/move {"to":"NODE"}: when it does, the node is
// the owner.
func (h *Handler) move(w http.ResponseWriter, r *http.Request, name facet.Name) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	to, err := decodeNode(body.Bytes, "to")
	body.Close()
	if err == nil && to.IsZero() {
		err = hinted(`send {"to":"NODE"}`, "the body does not say where to")
	}
	h.moved(w, r, name, to, service.KeepPin, err)
}

// pin answers PUT /v1/facets/T/F/pin, with a body {"node":"NODE"} or none, and
// DELETE of the same.
func (h *Handler) pin(w http.ResponseWriter, r *http.Request, name facet.Name) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var to cluster.NodeID
	pin, given := service.SetPin, len(bytes.TrimSpace(body.Bytes)) > 0
	switch {
	case r.Method == http.MethodDelete:
		if pin = service.ClearPin; given {
			err = badRequest("unpinning takes no body")
		}
	case given:
		to, err = decodeNode(body.Bytes, "node")
	}
	body.Close()
	h.moved(w, r, name, to, pin, err)
}

// moved moves unless the request was wrong already, and answers.
func (h *Handler) moved(w http.ResponseWriter, r *http.Request, name facet.Name, to cluster.NodeID, pin service.Pin, err error) {
	var info service.Info
	if err == nil {
		detail(w, slog.String("to", string(to)))
		info, err = h.opts.Operator.Move(r.Context(), name, to, pin)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answerInfo(w, http.StatusOK, &info)
}

// smallBody reads the body of a request that an operator may make, and that has no
// query. Where facets are is the operator's business, not the tenant's: they share
// the nodes.
func (h *Handler) smallBody(w http.ResponseWriter, r *http.Request) (*httpjson.Body, error) {
	if err := h.onCluster(r, token.Admin); err != nil {
		return nil, err
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	return httpjson.ReadBody(w, r, maxSmallBody, h.budget, "")
}

// decodeNode reads an object whose only field names a node. Without the field
// the node is zero.
func decodeNode(src []byte, field string) (node cluster.NodeID, err error) {
	err = decodeObject(src, func(d *execDecoder, key []byte) error {
		if string(key) != field {
			return unknownField(key, field)
		}
		return d.nodeID(&node)
	})
	return node, err
}

func (d *execDecoder) nodeID(node *cluster.NodeID) error {
	return d.word(func(v string) (err error) {
		if *node, err = cluster.ParseNodeID(v); err != nil {
			return badRequest("%v", err)
		}
		return nil
	})
}

// operations answers GET /v1/operations.
func (h *Handler) operations(w http.ResponseWriter, r *http.Request) {
	list, err := h.listOperations(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"operations":[`)
	for i := range list {
		if i > 0 {
			jw.Byte(',')
		}
		jw.Byte('\n')
		writeOperation(jw, &list[i])
	}
	jw.Raw("]}\n")
	jw.Close() // a peer that is gone needs no answer
}

func (h *Handler) listOperations(r *http.Request) ([]service.Operation, error) {
	if err := h.onCluster(r, token.Read); err != nil {
		return nil, err
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	return h.opts.Operator.Operations(r.Context())
}

// startOperation answers POST /v1/operations: 202 with the operation when it
// runs, 200 when there was nothing to wait for.
func (h *Handler) startOperation(w http.ResponseWriter, r *http.Request) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req, err := decodeOperation(body.Bytes)
	body.Close()
	var op service.Operation
	if err == nil {
		detail(w, slog.String("kind", string(req.Kind)), slog.String("node", string(req.Node)), slog.Bool("force", req.Force))
		op, err = h.opts.Operator.Start(r.Context(), req)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if op.State == service.StateRunning {
		status = http.StatusAccepted
	}
	w.Header().Set("Location", "/v1/operations/"+op.ID)
	answerOperation(w, status, &op)
}

func decodeOperation(src []byte) (req service.OperationRequest, err error) {
	err = decodeObject(src, func(d *execDecoder, key []byte) (err error) {
		switch string(key) {
		case "kind":
			return d.word(func(v string) error {
				if req.Kind = service.OperationKind(v); !slices.Contains(service.OperationKinds, req.Kind) {
					return hinted("the kinds are "+kindNames(), "there is no operation %s", shown(v))
				}
				return nil
			})
		case "node":
			return d.nodeID(&req.Node)
		case "rate":
			n, err := d.Int()
			if err == nil && (n < 0 || n > service.MaxRate) {
				err = badRequest("rate is a number of facets a second, 0 (the default) to %d", service.MaxRate)
			}
			req.Rate = int(n)
			return err
		case "force":
			req.Force, err = d.Bool()
			return err
		}
		return unknownField(key, "kind, node, rate and force")
	})
	switch {
	case err != nil:
	case req.Kind == "":
		err = hinted("the kinds are "+kindNames(), `the body does not say which kind of operation`)
	case req.Kind.NeedsNode() && req.Node.IsZero():
		err = hinted(`send {"kind":"`+string(req.Kind)+`","node":"NODE"}`, "the body does not say which node to %s", req.Kind)
	case !req.Kind.NeedsNode() && !req.Node.IsZero():
		err = badRequest("%s is about all nodes and names none", req.Kind)
	}
	return req, err
}

func kindNames() string {
	var names []string
	for _, k := range service.OperationKinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// operation answers GET /v1/operations/ID.
func (h *Handler) operation(w http.ResponseWriter, r *http.Request, id string) {
	if len(id) > maxOperationID {
		h.fail(w, r, facet.Errorf(facet.CodeNotFound, "there is no operation %s", shown(id)))
		return
	}
	list, err := h.listOperations(r)
	i := slices.IndexFunc(list, func(o service.Operation) bool { return o.ID == id })
	if err == nil && i < 0 {
		err = hintedAs(facet.CodeNotFound, "GET /v1/operations lists them; a new placement leader begins a new list", "there is no operation %s", shown(id))
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answerOperation(w, http.StatusOK, &list[i])
}

// cancelOperation answers DELETE /v1/operations/ID.
func (h *Handler) cancelOperation(w http.ResponseWriter, r *http.Request, id string) {
	if len(id) > maxOperationID {
		h.fail(w, r, facet.Errorf(facet.CodeNotFound, "there is no operation %s", shown(id)))
		return
	}
	err := h.onCluster(r, token.Admin)
	if err == nil {
		_, err = query(r)
	}
	if err == nil {
		err = h.opts.Operator.Cancel(r.Context(), id)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answerOperation(w http.ResponseWriter, status int, op *service.Operation) {
	jsonHeader(w)
	jw := httpjson.NewWriter(w, status)
	writeOperation(jw, op)
	jw.Byte('\n')
	jw.Close() // a peer that is gone needs no answer
}

func writeOperation(w *httpjson.Writer, op *service.Operation) {
	w.Raw(`{"id":`)
	httpjson.Str(w, op.ID)
	w.Raw(`,"kind":`)
	httpjson.Str(w, string(op.Kind))
	w.Raw(`,"node":`)
	httpjson.Str(w, string(op.Node))
	w.Raw(`,"state":`)
	httpjson.Str(w, string(op.State))
	w.Raw(`,"done":`)
	w.Int(int64(op.Done))
	w.Raw(`,"total":`)
	w.Int(int64(op.Total))
	w.Raw(`,"failed":`)
	w.Int(int64(op.Failed))
	w.Raw(`,"rate":`)
	w.Int(int64(op.Rate))
	w.Raw(`,"message":`)
	httpjson.Str(w, op.Message)
	w.Raw(`,"started":`)
	writeTime(w, op.Started)
	w.Raw(`,"ended":`)
	writeTime(w, op.Ended)
	w.Byte('}')
}

// writeTime writes a moment in UTC to the millisecond, the zero one as null.
func writeTime(w *httpjson.Writer, t time.Time) {
	if t.IsZero() {
		w.Raw("null")
		return
	}
	httpjson.Str(w, t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// recoverFacet answers POST /v1/facets/T/F/recover {"from":"NODE"}: when it does, the name
// leads to a facet made of the copy at that node, unless it is a dry run.
func (h *Handler) recoverFacet(w http.ResponseWriter, r *http.Request, name facet.Name) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req, err := decodeRecover(body.Bytes)
	body.Close()
	var rec service.Recovery
	if err == nil {
		detail(w, slog.String("from", string(req.From)), slog.Bool("dry_run", req.DryRun))
		rec, err = h.opts.Operator.Recover(r.Context(), name, req)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	writeRecovery(jw, &rec)
	jw.Byte('\n')
	jw.Close() // a peer that is gone needs no answer
}

func decodeRecover(src []byte) (req service.RecoverRequest, err error) {
	err = decodeObject(src, func(d *execDecoder, key []byte) (err error) {
		switch string(key) {
		case "from":
			return d.nodeID(&req.From)
		case "incarnation":
			return d.word(func(v string) (err error) {
				if req.Incarnation, err = facet.ParseIncarnation(v); err != nil {
					return badRequest("%v", err)
				}
				return nil
			})
		case "dry_run":
			req.DryRun, err = d.Bool()
			return err
		}
		return unknownField(key, "from, incarnation and dry_run")
	})
	if err == nil && req.From.IsZero() {
		err = hinted(`send {"from":"NODE","dry_run":true} to see what there is`, "the body does not say which node's copy to go on from")
	}
	return req, err
}

func writeRecovery(w *httpjson.Writer, rec *service.Recovery) {
	w.Raw(`{"tenant":`)
	httpjson.Str(w, string(rec.Name.Tenant))
	w.Raw(`,"facet":`)
	httpjson.Str(w, rec.Name.Facet)
	w.Raw(`,"incarnation":"`)
	w.Raw(rec.Incarnation.String())
	w.Raw(`","from":`)
	httpjson.Str(w, string(rec.From))
	w.Raw(`,"position":`)
	httpjson.Str(w, rec.Position.String())
	w.Raw(`,"committed":`)
	w.Uint(uint64(rec.Committed))
	w.Raw(`,"size_bytes":`)
	w.Int(rec.SizeBytes)
	w.Raw(`,"last_owner":`)
	httpjson.Str(w, string(rec.LastOwner))
	w.Raw(`,"copies":[`)
	for i := range rec.Copies {
		c := &rec.Copies[i]
		if i > 0 {
			w.Byte(',')
		}
		w.Raw(`{"node":`)
		httpjson.Str(w, string(c.Node))
		if c.Problem != "" {
			w.Raw(`,"problem":`)
			httpjson.Str(w, c.Problem)
		} else {
			w.Raw(`,"position":`)
			httpjson.Str(w, c.Position.String())
			w.Raw(`,"committed":`)
			w.Uint(uint64(c.Committed))
			w.Raw(`,"health":`)
			httpjson.Str(w, c.Health)
		}
		w.Byte('}')
	}
	w.Raw(`],"replicas":`)
	w.Int(int64(rec.Replicas))
	w.Raw(`,"refused":`)
	httpjson.Str(w, rec.Refused)
	w.Raw(`,"recovered":`)
	if rec.Recovered == nil {
		w.Raw(`null}`)
		return
	}
	writeInfo(w, rec.Recovered)
	w.Byte('}')
}

// nobody is the operator of a node that was given none.
type nobody struct{}

var errNobody = facet.Errorf(facet.CodeBadRequest, "this node cannot do that: it has nothing to move facets with")

// Start implements service.Operator.
func (nobody) Start(context.Context, service.OperationRequest) (service.Operation, error) {
	return service.Operation{}, errNobody
}

// Operations implements service.Operator.
func (nobody) Operations(context.Context) ([]service.Operation, error) { return nil, nil }

// Cancel implements service.Operator.
func (nobody) Cancel(_ context.Context, id string) error {
	return facet.Errorf(facet.CodeNotFound, "there is no operation %s", shown(id))
}

// Recover implements service.Operator.
func (nobody) Recover(context.Context, facet.Name, service.RecoverRequest) (service.Recovery, error) {
	return service.Recovery{}, errNobody
}

// Move implements service.Operator.
func (nobody) Move(context.Context, facet.Name, cluster.NodeID, service.Pin) (service.Info, error) {
	return service.Info{}, errNobody
}
