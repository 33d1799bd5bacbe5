package main

import "context"

// peer is a program, or a library, under comparison.
type peer interface {
	about() about
	// version is what the report says of the program at path.
	version(ctx context.Context, path string) (string, error)
	// launches are its processes, one for each directory and port of at.
	launches(at place) ([]launch, error)
	// open connects to processes that have been started, and fails while they are not
	// ready for work. It is called again then.
	open(ctx context.Context, at place, s settings) (session, error)
}

// about is what the report says of a peer.
type about struct {
	Name      string `json:"name"`
	Program   string `json:"program,omitempty"` // empty: a library, in the process of the load
	Processes int    `json:"processes"`         // 0: a library
	Client    string `json:"client"`
	Durable   string `json:"durable"` // what has happened when a write is answered
	Key       string `json:"key"`     // what a key is
	// Databases says that a key is a database of its own, so that its first write is
	// comparable with the first write to a facet.
	Databases bool `json:"databases"`
	// Against is the facetd it is compared with: as many copies, as many processes.
	Against string `json:"against,omitempty"`
}

// place is where the processes of a peer keep their data and listen. ports has the
// first of portsEach for each.
type place struct {
	dirs  []string
	ports []int
}

// launch is a process to be started.
type launch struct {
	args  []string
	files map[string]string // by path, written before
}

// session is a client of a running peer. create, write and read are called by many
// goroutines.
type session interface {
	// prepare is called once before all else.
	prepare(ctx context.Context) error
	// create writes the value of a key that is not there, durably.
	create(ctx context.Context, key int, value []byte) error
	// write replaces the value of a key, durably.
	write(ctx context.Context, key int, value []byte) error
	// read gives the length of the value of a key as of now: not a stale one.
	read(ctx context.Context, key int) (int, error)
	close() error
}

// sender is a session that knows what its servers have sent to one another.
type sender interface {
	sent(ctx context.Context) (int64, error)
}

// peers are all there are, in the order they are measured in each round.
func peers(s settings) []peer {
	return []peer{
		facetdPeer{name: "facetd", nodes: clusterSize}, etcdPeer{leader: s.etcdTo == "leader"}, natsPeer{}, rqlitePeer{},
		facetdPeer{name: "facetd-1", nodes: 1}, sqlitePeer{}, sqlitePeer{each: true}, workerdPeer{facets: true}, workerdPeer{},
	}
}

// portsEach is how many ports in a row a process may use.
const portsEach = 3

// The SQL of those that speak it.
const (
	createSQL = "CREATE TABLE IF NOT EXISTS kv (id INTEGER PRIMARY KEY, v BLOB NOT NULL)"
	upsertSQL = "INSERT INTO kv(id, v) VALUES (?, ?) ON CONFLICT(id) DO UPDATE SET v = excluded.v"
	selectSQL = "SELECT v FROM kv WHERE id = ?"
)
