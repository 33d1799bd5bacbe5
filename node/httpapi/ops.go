package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write([]byte(text)) // a peer that is gone needs no answer
}

// live answers as long as the process can.
func (h *Handler) live(w http.ResponseWriter) { writeText(w, http.StatusOK, "ok\n") }

// ready answers 200 when all checks pass, and lists them with ?verbose.
func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "verbose")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	checks := h.svc.Ready(r.Context())
	status := http.StatusOK
	var lines strings.Builder
	for _, c := range checks {
		if c.Err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&lines, "[-] %s: %v\n", c.Name, c.Err)
			continue
		}
		fmt.Fprintf(&lines, "[+] %s\n", c.Name)
	}
	verdict := "ready\n"
	if status != http.StatusOK {
		verdict = "not ready\n"
	}
	if q.Has("verbose") {
		writeText(w, status, lines.String()+verdict)
		return
	}
	writeText(w, status, verdict)
}

func (h *Handler) metrics(w http.ResponseWriter, r *http.Request) {
	if err := h.onCluster(r, token.Read); err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := h.svc.Metrics(httpjson.NewStall(w, r)); err != nil && r.Context().Err() == nil {
		h.log.Error("write metrics", "err", err)
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) cluster(w http.ResponseWriter, r *http.Request) {
	g, err := h.grant(r)
	if err == nil {
		_, err = query(r)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	c := h.svc.Cluster(r.Context())
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	if g.Cluster() < token.Read {
		writeAddresses(jw, c.Nodes)
		return
	}
	jw.Raw(`{"id":`)
	httpjson.Str(jw, c.ID)
	jw.Raw(`,"self":`)
	httpjson.Str(jw, string(c.Self))
	jw.Raw(`,"leader":`)
	httpjson.Str(jw, string(c.Leader))
	jw.Raw(`,"term":`)
	jw.Uint(c.Term)
	jw.Raw(`,"applied":`)
	jw.Uint(c.Applied)
	jw.Raw(`,"facets":`)
	jw.Int(int64(c.Facets))
	jw.Raw(`,"replicas":`)
	jw.Int(int64(c.Replicas))
	jw.Raw(`,"nodes":[`)
	for i := range c.Nodes {
		if i > 0 {
			jw.Byte(',')
		}
		jw.Byte('\n')
		writeNode(jw, &c.Nodes[i], c.Leader)
	}
	jw.Raw("]}\n")
	jw.Close() // a peer that is gone needs no answer
}

// writeAddresses tells a tenant where the nodes are, and nothing else: his clients
// need another one when theirs is gone, and redirects name them anyway.
func writeAddresses(w *httpjson.Writer, nodes []service.Node) {
	w.Raw(`{"nodes":[`)
	for i := range nodes {
		if i > 0 {
			w.Byte(',')
		}
		w.Raw("\n" + `{"id":`)
		httpjson.Str(w, string(nodes[i].ID))
		w.Raw(`,"state":`)
		httpjson.Str(w, string(nodes[i].State))
		w.Raw(`,"api":`)
		httpjson.Str(w, nodes[i].API)
		w.Byte('}')
	}
	w.Raw("]}\n")
	w.Close() // a peer that is gone needs no answer
}

func writeNode(w *httpjson.Writer, n *service.Node, leader cluster.NodeID) {
	field := func(name, value string) {
		w.Raw(`,"` + name + `":`)
		httpjson.Str(w, value)
	}
	w.Raw(`{"id":`)
	httpjson.Str(w, string(n.ID))
	field("state", string(n.State))
	w.Raw(`,"leader":`)
	w.Bool(n.ID == leader && !n.ID.IsZero())
	w.Raw(`,"voter":`)
	w.Bool(n.Voter)
	field("api", n.API)
	field("peer", n.Peer)
	field("zone", n.Zone)
	field("version", n.Version)
	field("boot_id", n.Boot)
	field("store_id", n.Store)
	w.Raw(`,"owned":`)
	w.Int(int64(n.Owned))
	w.Raw(`,"held":`)
	w.Int(int64(n.Held))
	w.Raw(`,"lease_age_ms":`)
	if n.LeaseAge == 0 {
		w.Raw("null}")
		return
	}
	w.Millis(n.LeaseAge)
	w.Byte('}')
}

// database answers GET /v1/db/T/F/, where people look with a browser.
func (h *Handler) database(w http.ResponseWriter, r *http.Request, name facet.Name) {
	base := baseURL(r) + "/v1/db/" + name.String() + "/"
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"database":`)
	httpjson.Str(jw, name.String())
	jw.Raw(`,"exec":`)
	httpjson.Str(jw, base+"exec")
	jw.Raw(`,"libsql_url":`)
	httpjson.Str(jw, base)
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

// root tells what this is.
func (h *Handler) root(w http.ResponseWriter, r *http.Request) {
	version := ""
	if h.opts.Version != "" {
		version = " " + h.opts.Version
	}
	writeText(w, http.StatusOK, fmt.Sprintf(rootText, version, baseURL(r)))
}

const rootText = `facetd%[1]s: a SQLite database for every tenant

Make a facet by writing to it, and read it:
  curl %[2]s/v1/db/acme/notes/exec -d 'CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text)'
  curl %[2]s/v1/db/acme/notes/exec -d '{"sql":"INSERT INTO note (text) VALUES (?)","args":["hello"]}'
  curl %[2]s/v1/db/acme/notes/exec -d 'SELECT * FROM note'

With any libSQL client (mind the slash at the end):
  %[2]s/v1/db/acme/notes/

Endpoints:
  POST   /v1/db/TENANT/FACET/exec            SQL in JSON or as it is
  POST   /v1/db/TENANT/FACET/v2/pipeline     libSQL's protocol; also v3/pipeline and v3/cursor
  GET    /v1/facets?tenant=TENANT            list, by after=NAME and limit=N
  GET    /v1/facets/TENANT/FACET             look; PUT creates, DELETE deletes
  GET    /v1/facets/TENANT/FACET/export      the database as a SQLite file
  PUT    /v1/facets/TENANT/FACET/import      the same the other way; ?replace=true
  POST   /v1/facets/TENANT/FACET/move        {"to":"NODE"}
  PUT    /v1/facets/TENANT/FACET/pin         {"node":"NODE"} or where it is; DELETE unpins
  POST   /v1/operations                      {"kind":"drain","node":"NODE"}; GET lists, DELETE of one cancels
  GET    /v1/tenants/TENANT                  use and limits; PATCH sets limits; PUT and DELETE freeze
  GET    /v1/tenants                         those with settings; /v1/tenant-defaults, PATCH as well
  GET    /v1/busiest-tenants?by=time         at this node, by time, requests, writes or bytes; limit=N
  GET    /v1/cluster /livez /readyz?verbose /metrics
`
