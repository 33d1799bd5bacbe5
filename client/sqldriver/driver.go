// Package sqldriver is the database/sql driver of facetd, named "facetd":
//
//	import _ "github.com/facetd/facetd/client/sqldriver"
//
//	db, err := sql.Open("facetd", "facetd://127.0.0.1:7400/acme/notes?token=…")
//
// It owns the translation between database/sql and the SDK, and refuses to add
// anything to it: connections, retries and errors are those of package client.
//
// One sql.DB is one facet. All its pooled connections share one client; a
// sql.Conn costs nothing but while it is in a transaction, which holds the facet.
//
// # The data source name
//
//	facetd://HOST:PORT[,HOST:PORT…]/TENANT/FACET[?OPTION=VALUE&…]
//
// Any node will do as a host; several are for opening the database while one of
// them is down. The others are learned.
//
//	token=T          bearer token
//	tls=true         reach the hosts over https
//	ca=FILE          the same, and trust the CA in the PEM file, no other
//	cert=FILE        the same, and show the certificate in the PEM file
//	key=FILE         the key of the certificate, where it is in a file of its own
//	idempotent=true  give every write outside transactions an idempotency key
//	readonly=true    refuse writes
//	read=quorum      have every read confirmed by a majority, see client.Facet.QuorumReads
//	read=follower    read what any replica has, see client.Facet.FollowerReads
//
// # Behaviour to know
//
// An Exec without arguments may hold many statements, as migrations have them;
// its result is that of the script. Statements are not prepared ahead: Prepare
// sends nothing, an error of the SQL shows when it runs. Transactions are BEGIN
// IMMEDIATE, or BEGIN with sql.TxOptions.ReadOnly; isolation is serializable, and
// only that and the default are accepted. When the context of a transaction ends,
// database/sql rolls it back.
//
// The pooled connections of a sql.DB are not connections to nodes, so the loss of a
// node does not make one bad: the driver returns driver.ErrBadConn only for one
// that was left in a transaction, and for a database that was closed. What may be
// retried was retried when an error is returned. A transaction whose facet moved,
// or whose node died, fails with facet.ErrTxClosed, and its statements were not
// done; begin it again. facet.ErrUnknownOutcome comes from a commit that was not
// answered, and from writes outside of transactions unless idempotent=true. The
// deadline of a context bounds the retries; without one it is 30 s.
//
// A column declared DATE, DATETIME or TIMESTAMP gives a time.Time when its text
// can be read as one (integers are Unix seconds), one declared BOOLEAN or BOOL
// gives a bool when it holds an integer. Everything else has the type SQLite
// stored: int64, float64, string, []byte or nil. time.Time arguments are stored
// as RFC 3339 text with nanoseconds.
package sqldriver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

func init() { sql.Register("facetd", Driver{}) }

// Driver is the driver; use it by its name "facetd".
type Driver struct{}

// Open is for database/sql, which prefers OpenConnector.
func (d Driver) Open(dsn string) (driver.Conn, error) {
	c, err := d.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	cn, err := c.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	cn.(*conn).own = c.(*Connector) // the only one of its connector
	return cn, nil
}

// OpenConnector reads the data source name.
func (d Driver) OpenConnector(dsn string) (driver.Connector, error) { return ParseDSN(dsn) }

// Connector makes the connections of one sql.DB, see sql.OpenDB.
type Connector struct {
	endpoints []string
	name      facet.Name
	readOnly  bool
	read      facet.ReadMode
	options   client.Options

	mu     sync.Mutex
	client *client.Client // opened by the first Connect, or given
	given  bool
	closed bool
}

// ParseDSN makes a connector of a data source name.
func ParseDSN(dsn string) (*Connector, error) {
	bad := func(format string, args ...any) (*Connector, error) {
		return nil, facet.Errorf(facet.CodeBadRequest, "data source name: %s; write it as facetd://host:7400/tenant/facet", fmt.Sprintf(format, args...))
	}
	rest, ok := strings.CutPrefix(dsn, "facetd://")
	if !ok {
		return bad("it does not begin with facetd://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, name, ok := strings.Cut(rest, "/")
	if !ok || hosts == "" {
		return bad("a host and a facet are needed")
	}
	c := &Connector{}
	var err error
	if c.name, err = facet.ParseName(strings.TrimSuffix(name, "/")); err != nil {
		return nil, err
	}
	opts, err := url.ParseQuery(query)
	if err != nil {
		return bad("%v", err)
	}
	scheme, ca, cert, key := "http://", "", "", ""
	for k, vs := range opts {
		v := vs[len(vs)-1]
		var on bool
		if !slices.Contains([]string{"token", "read", "ca", "cert", "key"}, k) {
			if on, err = strconv.ParseBool(v); err != nil {
				return bad("option %s=%.40q is neither true nor false", k, v)
			}
		}
		switch k {
		case "token":
			c.options.Token = v
		case "ca":
			ca = v
		case "cert":
			cert = v
		case "key":
			key = v
		case "read":
			if c.read, err = facet.ParseReadMode(v); err != nil {
				return bad("%v", err)
			}
		case "tls":
			if on {
				scheme = "https://"
			}
		case "idempotent":
			c.options.Idempotent = on
		case "readonly":
			c.readOnly = on
		default:
			return bad("option %.40q is not known", k)
		}
	}
	if ca != "" || cert != "" || key != "" {
		scheme = "https://"
		if c.options.TLS, err = client.LoadTLS(ca, cert, key); err != nil {
			return nil, err
		}
	}
	for h := range strings.SplitSeq(hosts, ",") {
		c.endpoints = append(c.endpoints, scheme+h)
	}
	c.options.Software = "facetd-go-sql"
	return c, nil
}

// NewConnector makes a connector for a facet on a client you have. Closing the
// sql.DB leaves the client open.
func NewConnector(c *client.Client, name facet.Name) *Connector {
	return &Connector{client: c, given: true, name: name}
}

// Connect makes a connection; the first opens the client.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, driver.ErrBadConn
	}
	if c.client == nil {
		cl, err := client.Open(ctx, c.endpoints, c.options)
		if err != nil {
			return nil, err
		}
		c.client = cl
	}
	f, err := c.client.Facet(c.name.String())
	if err != nil {
		return nil, err
	}
	if c.readOnly {
		f = f.ReadOnly()
	}
	switch c.read {
	case facet.ReadQuorum:
		f = f.QuorumReads()
	case facet.ReadFollower:
		f = f.FollowerReads()
	}
	return &conn{client: c.client, base: f}, nil
}

// Driver is for database/sql.
func (c *Connector) Driver() driver.Driver { return Driver{} }

// Close is called by sql.DB.Close.
func (c *Connector) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.client == nil || c.given {
		return nil
	}
	err := c.client.Close()
	c.client = nil
	return err
}

var _ interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
} = (*conn)(nil)

var _ io.Closer = (*Connector)(nil)
