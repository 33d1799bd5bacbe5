package lint

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/facetd/facetd/"

// pkg is what `go list` tells of one package.
type pkg struct {
	ImportPath  string
	Dir         string
	GoFiles     []string
	Imports     []string
	Deps        []string
	TestImports []string
}

func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module) }

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps,TestImports"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	var ps []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// match reports whether rel is the pattern, or below it when it ends in "/...".
func match(pattern, rel string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return rel == base || strings.HasPrefix(rel, base+"/")
	}
	return rel == pattern
}

// mayImport lists, for each package of the module, the packages of the module it
// may import. Arrows only go down. A package without a line fails the test.
var mayImport = []struct {
	pkg     string
	imports []string
	why     string
}{
	{"facet", nil, "vocabulary: everybody speaks it, so it leans on nobody"},
	{"cluster", nil, "vocabulary: everybody speaks it, so it leans on nobody"},
	{"facet/pages", []string{"facet"}, "pages know nothing of SQLite and logs"},
	{"facet/quorum", []string{"facet"}, "a pure core"},
	{"facet/commitlog", []string{"facet", "internal/disk"}, "the log does not know what its records mean"},
	{"facet/replica", []string{"facet", "facet/pages", "facet/commitlog", "internal/disk"}, "a replica needs no SQL"},
	{"facet/engine", []string{"facet", "facet/pages", "internal/sqlite"}, "the engine needs no log"},
	{"internal/sqlite", nil, "a binding knows no facets"},
	{"internal/disk", nil, "a file system knows no facets"},
	{"internal/disk/disktest", nil, "a file system for tests"},
	{"internal/lint", nil, "tests only"},
	{"internal/broken", nil, "constants that are false; every package may ask it, see everywhere"},
	{"internal/mutation", nil, "tests only; nobody imports it"},
	{"internal/e2e", nil, "tests only"},
	{"internal/hostile", nil, "tests only"},
	{"internal/sim", nil, "tests only; nobody imports it"},
	{"internal/coverage", nil, "a command for developers; nobody imports it"},
	{"internal/fuzz", nil, "a command for developers; nobody imports it"},
	{"internal/wire", []string{"facet", "cluster", "placement"}, "both ends of the protocol import it, so it reaches no engine"},
	{"placement", []string{"facet", "cluster"}, "a deterministic state machine"},
	{"placement/...", []string{"facet", "cluster", "placement"}, "pure decisions over the table"},
	{"cluster/consensus", []string{"cluster", "internal/disk"}, "an adapter of Raft, and the file of its log"},
	{"cluster/...", []string{"cluster"}, "adapters of one library each"},
	{"client/...", []string{"facet", "internal/wire", "client/..."}, "the SDK reaches no engine"},
	{"bench/limits", []string{"facet/...", "internal/...", "bench/...", "client"}, "measures parts of a node in process, to compare with the whole"},
	{"bench/...", []string{"client/...", "facet", "bench/..."}, "the benchmark uses the SDK as a user would"},
	{"node/service", []string{"facet", "cluster"}, "the border between a node and its faces"},
	{"node/quota", []string{"facet", "cluster"}, "holds tenants to what the table says; it runs nothing"},
	{"node/owner", []string{"facet/...", "cluster", "node/service", "node/peer", "node/quota"}, "ownership does not know protocols"},
	{"node/service/servicetest", []string{"facet", "cluster", "node/service"}, "a cluster on paper for tests"},
	{"node/native/nativetest", []string{"facet", "cluster", "node/service"}, "a service in memory for tests"},
	{"node/peer", []string{"facet/...", "cluster", "placement", "internal/..."}, "carries messages between nodes and decides nothing"},
	{"node/steward", []string{"facet", "cluster", "placement/..."}, "decides by the table and the leases alone; what reaches other nodes is given to it"},
	{"node/keeper", []string{"facet", "facet/replica", "cluster", "placement", "node/peer"}, "the copies of owners elsewhere: a replica store and the table, no SQL and no log of decisions"},
	{"node/follower", []string{"facet/...", "cluster", "placement", "node/service", "node/quota"}, "reads of copies: who owns a facet is the table's word, and reaching the owner is given to it"},
	{"node/audit", []string{"facet", "facet/replica", "cluster", "placement", "node/peer"}, "compares what stores keep by what the table says; what repairs it is given to it"},
	{"node/scrub", []string{"facet", "facet/replica", "internal/disk"}, "reads what a store keeps; the store judges it"},
	{"node/lease", []string{"facet", "facet/quorum", "cluster", "cluster/consensus", "placement", "node/peer"}, "clocks and the placement log around the pure rules of leases"},
	{"internal/certs", []string{"cluster"}, "certificates in memory: what makes them and what reads them both import it"},
	{"internal/token", []string{"facet"}, "a text and its judgement: what makes tokens and what asks for them both import it"},
	{"node/credentials", []string{"cluster", "internal/certs", "internal/disk"}, "files that prove who a node is; what is said over a connection is nothing to it"},
	{"node/auth", []string{"facet", "internal/token", "internal/disk"}, "who may come in does not depend on the door"},
	{"node/telemetry", []string{"facet", "node/service"}, "watches requests at the border, whoever executes them"},
	{"node/native", []string{"facet", "cluster", "internal/wire", "node/service", "node/internal/bearer"}, "a face reaches the node through the service only"},
	{"node/hrana/...", []string{"facet", "cluster", "node/service", "node/internal/..."}, "a face reaches the node through the service only"},
	{"node/httpapi/...", []string{"facet", "cluster", "internal/token", "node/service", "node/hrana", "node/internal/..."}, "a face reaches the node through the service only"},
	{"node/internal/fakeservice", []string{"facet", "cluster", "node/service/...", "internal/sqlite"}, "a service for tests that runs real SQL"},
	{"node/internal/...", []string{"facet", "cluster", "node/service"}, "what the faces share"},
	{"node", []string{"facet/...", "cluster/...", "placement/...", "internal/...", "node/..."}, "the composition: everything but the client"},
	{"examples/...", []string{"client", "facet"}, "programs as users write them"},
	{"cmd/facetd/...", []string{"facet", "cluster", "client/...", "node", "bench/...", "internal/...", "cmd/..."}, "one binary"},
}

// everywhere is what every package may import: it is nothing in a binary of the product.
const everywhere = "internal/broken"

func TestImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		i := slices.IndexFunc(mayImport, func(r struct {
			pkg     string
			imports []string
			why     string
		}) bool {
			return match(r.pkg, p.rel())
		})
		if i < 0 {
			t.Errorf("package %s has no line in mayImport: say what it may import", p.rel())
			continue
		}
		rule := mayImport[i]
		for _, imp := range p.Imports {
			rel, ours := strings.CutPrefix(imp, module)
			if ours && rel != everywhere && !slices.ContainsFunc(rule.imports, func(pat string) bool { return match(pat, rel) }) {
				t.Errorf("%s imports %s; it may not: %s", p.rel(), rel, rule.why)
			}
		}
	}
}

// engines holds each third-party engine in one package.
var engines = []struct{ prefix, only, why string }{
	{"modernc.org/sqlite/lib", "internal/sqlite", "one package holds the SQLite engine"},
	{"modernc.org/libc", "internal/sqlite", "one package holds the SQLite engine"},
	{"modernc.org/sqlite", "internal/sqlite bench/limits", "the stock driver is only there to be measured against"},
	{"github.com/hashicorp/raft", "cluster/consensus", "one package holds Raft"},
	{"go.etcd.io/bbolt", "cluster/consensus", "one package holds Raft's store"},
	{"github.com/hashicorp/memberlist", "cluster/gossip", "one package holds gossip"},
}

func TestEnginesLiveInOnePackage(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imp := range p.Imports {
			for _, e := range engines {
				if (imp == e.prefix || strings.HasPrefix(imp, e.prefix+"/") || strings.HasPrefix(imp, e.prefix+"-")) &&
					!slices.Contains(strings.Fields(e.only), p.rel()) {
					t.Errorf("%s imports %s: %s", p.rel(), imp, e.why)
					break
				}
			}
		}
	}
}

// TestSDKReachesNoEngine looks through the whole import graph of the SDK.
func TestSDKReachesNoEngine(t *testing.T) {
	for _, p := range list(t, "./client/...") {
		for _, dep := range p.Deps {
			for _, e := range engines {
				if dep == e.prefix || strings.HasPrefix(dep, e.prefix+"/") {
					t.Errorf("%s reaches %s", p.rel(), dep)
				}
			}
			if rel, ours := strings.CutPrefix(dep, module); ours && (strings.HasPrefix(rel, "node") || strings.HasPrefix(rel, "facet/")) {
				t.Errorf("%s reaches %s", p.rel(), rel)
			}
		}
	}
}

// TestVocabularyIsStandardLibraryOnly holds facet and cluster to it.
func TestVocabularyIsStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "./facet", "./cluster", "./facet/quorum") {
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, module) {
				t.Errorf("%s imports %s", p.rel(), imp)
			}
		}
	}
}

// TestPackageDocs wants a doc comment in every package, and no package or file
// named after nothing.
func TestPackageDocs(t *testing.T) {
	empty := []string{"util", "utils", "common", "helpers", "helper", "types", "misc"}
	for _, p := range list(t, "./...") {
		if slices.Contains(empty, path.Base(p.ImportPath)) {
			t.Errorf("package %s is named after nothing", p.rel())
		}
		documented := false
		for _, f := range p.GoFiles {
			if slices.Contains(empty, strings.TrimSuffix(f, ".go")) {
				t.Errorf("file %s/%s is named after nothing", p.rel(), f)
			}
			file, err := parser.ParseFile(token.NewFileSet(), p.Dir+"/"+f, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil && len(file.Doc.Text()) > 80 {
				documented = true
			}
		}
		if len(p.GoFiles) > 0 && !documented {
			t.Errorf("package %s has no doc comment that says what it owns, what it refuses, who calls it and its concurrency rule", p.rel())
		}
	}
}
