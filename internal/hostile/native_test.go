package hostile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/internal/wire"
)

// nativeInput is what a client sends after the Upgrade, and why it is refused.
type nativeInput struct {
	name  string
	hello bool // after a good hello
	bytes []byte
	code  facet.Code // of the GoAway, or the error that answers; 0: the node just says nothing
	text  string
}

// rawFrame is a frame with any header.
func rawFrame(typ, flags byte, id uint32, length int, body []byte, sum bool) []byte {
	f := make([]byte, 16, 16+len(body))
	binary.BigEndian.PutUint32(f[4:], uint32(length))
	binary.BigEndian.PutUint32(f[8:], id)
	f[12], f[13] = typ, flags
	f = append(f, body...)
	if sum {
		binary.BigEndian.PutUint32(f, crc32.Checksum(f[4:], crc32.MakeTable(crc32.Castagnoli)))
	}
	return f
}

func goodFrame(typ, flags byte, id uint32, body []byte) []byte {
	return rawFrame(typ, flags, id, len(body), body, true)
}

// request is a request frame; change spoils its body.
func requestFrame(name string, change func(body []byte) []byte) []byte {
	tenant, f, _ := strings.Cut(name, "/")
	b := wire.AppendRequest(nil, 7, &facet.Request{Name: facet.Name{Tenant: facet.Tenant(tenant), Facet: f}, Steps: []facet.Step{{SQL: []byte("SELECT 1")}}})
	if change != nil {
		return goodFrame(b[12], b[13], 7, change(b[16:]))
	}
	return b
}

func nativeInputs(w *world) []nativeInput {
	const bad, unauthorized, gone, long = facet.CodeBadRequest, facet.CodeUnauthorized, facet.CodeNotFound, facet.CodeLimit
	hello := func(h wire.Hello) []byte { return wire.AppendHello(nil, h) }
	huge := binary.AppendUvarint(nil, 1<<63)
	head := func(rest ...byte) []byte { // of a body: tenant, facet, timeout
		b := facet.AppendStr(facet.AppendStr(nil, "mallory"), "den")
		return append(append(b, 0), rest...)
	}
	over := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	body := func(name string, b []byte, code facet.Code) nativeInput {
		return nativeInput{name, true, goodFrame(3, 0, 7, b), code, "decode request"}
	}
	bad7 := func(name string, b []byte) nativeInput { return body(name, b, bad) }
	return []nativeInput{
		{"HTTP after the upgrade", false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), bad, "longer than the limit"},
		{"length 2^32-1", false, rawFrame(1, 0, 0, 1<<32-1, nil, true), bad, "longer than the limit"},
		{"length over the limit of a hello", false, rawFrame(1, 0, 0, wire.MaxHello+1, nil, true), bad, "longer than the limit"},
		{"checksum", false, rawFrame(1, 0, 0, 4, []byte("abcd"), false), bad, "checksum"},
		{"reserved bytes", false, func() []byte { f := rawFrame(1, 0, 0, 0, nil, true); f[15] = 1; return f }(), bad, "reserved"},
		{"request before the hello", false, requestFrame("mallory/den", nil), bad, "hello"},
		{"unknown type before the hello", false, goodFrame(200, 0, 0, nil), bad, "hello"},
		{"empty hello", false, goodFrame(1, 0, 0, nil), bad, "magic"},
		{"hello of another protocol", false, goodFrame(1, 0, 0, []byte("FACETP\r\n\x01\x01")), bad, "magic"},
		{"hello cut off", false, goodFrame(1, 0, 0, []byte("FACETD\r\n\x01")), bad, "version"},
		{"hello of a long name", false, hello(wire.Hello{VersionMin: 1, VersionMax: 1, Software: rep("x", 1000)}), bad, "software"},
		{"token of 9 KB", false, hello(wire.Hello{VersionMin: 1, VersionMax: 1, Token: rep("t", 9<<10)}), bad, "token"},
		{"token of 1 MiB", false, hello(wire.Hello{VersionMin: 1, VersionMax: 1, Token: rep("t", 1<<20)}), bad, "longer than the limit"},
		{"length of a token overflows", false, goodFrame(1, 0, 0, append([]byte("FACETD\r\n\x01\x01\x00"), huge...)), bad, "token"},
		{"varint of 11 bytes", false, goodFrame(1, 0, 0, append([]byte("FACETD\r\n"), over...)), bad, "version"},
		{"versions of the future", false, hello(wire.Hello{VersionMin: 1 << 40, VersionMax: 1 << 41}), facet.CodeVersion, "upgrade the older"},
		{"versions the wrong way round", false, hello(wire.Hello{VersionMin: 9, VersionMax: 1}), bad, "version"},
		{"version 0", false, hello(wire.Hello{Token: w.mallory}), facet.CodeVersion, "upgrade the older"},
		{"garbage token", false, hello(wire.Hello{VersionMin: 1, VersionMax: 1, Token: "garbage"}), unauthorized, "token"},

		{"second hello", true, hello(wire.Hello{VersionMin: 1, VersionMax: 1, Token: w.victim}), bad, "does not send hello"},
		{"answer of a server", true, goodFrame(4, 0, 7, nil), bad, "does not send response"},
		{"go-away of a client", true, goodFrame(9, 0, 0, nil), bad, "does not send go-away"},
		{"unknown type", true, goodFrame(255, 255, 7, nil), bad, "does not send"},
		{"length over the limit", true, rawFrame(3, 0, 7, wire.MaxFrame+1, nil, true), bad, "longer than the limit"},
		{"length 2^31", true, rawFrame(3, 0, 7, 1<<31, nil, true), bad, "longer than the limit"},
		{"flipped bit", true, func() []byte { f := requestFrame("mallory/den", nil); f[len(f)-1] ^= 1; return f }(), bad, "checksum"},
		{"ping of 10 KB", true, goodFrame(7, 0, 0, make([]byte, 10<<10)), bad, "ping"},
		{"cancel of nothing", true, append(goodFrame(6, 0, 99, nil), requestFrame("victim/vault", nil)...), gone, "does not exist"},
		{"the same id twice", true, append(slowFrame(), slowFrame()...), bad, "under way already"},
		bad7("empty request", nil),
		bad7("no steps field", head()),
		{"no steps", true, goodFrame(3, 0, 7, head(0)), bad, "no steps"},
		body("2^63 steps", head(huge...), long),
		bad7("steps without bodies", head(200, 1)),
		bad7("unknown bits of a step", head(1, 0xf0)),
		bad7("unknown kind of a step", head(1, 3, 1, 'x', 0, 0)),
		bad7("SQL longer than the frame", head(1, 0, 0xff, 0x7f)),
		body("2^63 arguments", head(append([]byte{1, 0, 1, 'x'}, huge...)...), long),
		bad7("arguments that are none", head(1, 0, 1, 'x', 1, 1, 0xee)),
		body("condition without an end", head(append([]byte{1, 16, 1, 'x', 0, 0}, rep("\x03", 5000)...)...), long),
		{"unknown flags", true, goodFrame(3, 0x80, 7, head(1, 0, 1, 'x', 0, 0)), bad, "decode request"},
		{"what is left over", true, requestFrame("mallory/den", func(b []byte) []byte { return append(b, "more"...) }), bad, "decode request"},
		{"tenant in capitals", true, requestFrame("MALLORY/den", nil), bad, "not valid"},
		{"tenant of all", true, requestFrame("*/den", nil), bad, "not valid"},
		{"facet with a slash", true, requestFrame("mallory/../victim/vault", nil), bad, "not valid"},
		{"facet of facetd", true, requestFrame("mallory/_facetd", nil), bad, "not valid"},
		{"facet of 10 KB", true, requestFrame("mallory/"+rep("a", 10_000), nil), bad, "facet"},
		{"no facet", true, requestFrame("mallory/", nil), bad, "not valid"},
		{"the victim's facet", true, requestFrame("victim/vault", nil), gone, "does not exist"},
		{"a facet that is not there", true, requestFrame("victim/nothing", nil), gone, "does not exist"},
		{"100,000 arguments", true, wire.AppendRequest(nil, 7, &facet.Request{Name: facet.Name{Tenant: "mallory", Facet: "den"}, Steps: []facet.Step{{SQL: []byte("SELECT 1"), NArgs: 100_000, Args: make(facet.Values, 100_000)}}}), long, "arguments"},
		{"SQL of 2 MiB", true, wire.AppendRequest(nil, 7, &facet.Request{Name: facet.Name{Tenant: "mallory", Facet: "den"}, Steps: []facet.Step{{SQL: make([]byte, 2<<20)}}}), long, "sql_bytes"},
		{"truncated", true, requestFrame("mallory/den", nil)[:20], 0, ""},
	}
}

// slowFrame is a request that is still under way when the next frame is read.
func slowFrame() []byte {
	return wire.AppendRequest(nil, 7, &facet.Request{Name: facet.Name{Tenant: "mallory", Facet: "den"}, Steps: []facet.Step{{SQL: []byte("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r")}}})
}

// upgrade opens a connection of the native protocol and gives what the node sends.
func (w *world) upgrade(tok string) (net.Conn, *bufio.Reader, int) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.n.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	auth := ""
	if tok != "" {
		auth = "Authorization: Bearer " + tok + "\r\n"
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n%sConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Path, auth, wire.Protocol)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return c, r, res.StatusCode
}

// nextError reads frames until one is an error, or the connection ends.
func (w *world) nextError(r io.Reader) *facet.Error {
	w.t.Helper()
	for {
		head := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil
		}
		body := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, body); err != nil {
			w.t.Fatalf("a frame of the node is cut short: %v", err)
		}
		if typ := wire.Type(head[12]); typ == wire.TypeError || typ == wire.TypeGoAway {
			e, err := facet.DecodeError(body)
			if err != nil {
				w.t.Fatal(err)
			}
			return e
		}
	}
}

// TestNative sends frames that are none, or say what none should.
func TestNative(t *testing.T) {
	w := newWorld(t, nil)
	w.set("mallory", `{"statement_ms":500}`)
	w.mustExec(w.mallory, "mallory/den", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	was := inUse()
	list := nativeInputs(w)
	for _, in := range list {
		t.Run(in.name, func(t *testing.T) {
			w.t = t
			c, r, status := w.upgrade("")
			defer c.Close()
			if status != http.StatusSwitchingProtocols {
				t.Fatalf("upgrade: %d", status)
			}
			sent := in.bytes
			if in.hello {
				sent = append(wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1, Token: w.mallory}), sent...)
			}
			c.Write(sent) // it may be refused before all of it was taken
			if in.code == 0 && in.text == "" {
				c.(*net.TCPConn).CloseWrite()
			}
			e := w.nextError(r)
			switch {
			case in.code == 0 && in.text == "":
				if e != nil {
					t.Errorf("answered with %v", e)
				}
			case e == nil:
				t.Error("the connection ended without a word")
			default:
				w.clearText(e.Code.String(), e.Message)
				if in.code != 0 && e.Code != in.code || !strings.Contains(e.Message+e.Limit, in.text) {
					t.Errorf("%v; want %v and %q", e, in.code, in.text)
				}
			}
			w.unharmed()
		})
	}
	w.t = t
	w.back(was)
	t.Logf("%d inputs", len(list))
}

// forged are tokens that must not open anything.
func (w *world) forged() []struct{ name, tok, text string } {
	const claims = `{"tenant":"victim","facets":["*"],"access":"admin","exp":4102444800}`
	const k1 = `{"alg":"EdDSA","typ":"JWT","kid":"k1"}`
	good := strings.Split(w.victim, ".")
	sign := func(header, claims string) string { return jws(w.keys[0], header, claims) }
	signed := func(c token.Claims) string { return w.sign(c) }
	victim := token.Claims{Tenant: "victim", Facets: []string{"*"}, Access: token.Admin}
	with := func(change func(*token.Claims)) string { c := victim; change(&c); return signed(c) }
	list := []struct{ name, tok, text string }{
		{"garbage", "garbage", "malformed"},
		{"three dots", "...", "malformed"},
		{"empty parts", "..", "malformed"},
		{"a megabyte of dots", rep(".", 5000), "malformed"},
		{"alg none", sign(`{"alg":"none","kid":"k1"}`, claims), "alg"},
		{"alg none, no signature", strings.Join(strings.Split(sign(`{"alg":"none"}`, claims), ".")[:2], ".") + ".", "malformed"},
		{"alg None", sign(`{"alg":"nOnE","kid":"k1"}`, claims), "alg"},
		{"HS256 with the public key", hs256(w.public(0), claims), ""},
		{"alg in two members", sign(`{"alg":"EdDSA","alg":"none","kid":"k1"}`, claims), "twice"},
		{"unknown key", jws(w.keys[2], `{"alg":"EdDSA","kid":"k9"}`, claims), "not known"},
		{"another key", jws(w.keys[2], k1, claims), "signature"},
		{"key of another tenant", jws(w.keys[1], `{"alg":"EdDSA","kid":"bolt"}`, claims), "tenant bolt"},
		{"supervisor by a tenant's key", jws(w.keys[1], `{"alg":"EdDSA","kid":"bolt"}`, `{"tenant":"*","facets":["*"],"access":"admin","exp":4102444800}`), "tenant bolt"},
		{"kid is a path", sign(`{"alg":"EdDSA","kid":"../../dev/null"}`, claims), "not known"},
		{"kid is SQL", sign(`{"alg":"EdDSA","kid":"x' UNION SELECT 'k1"}`, claims), "not known"},
		{"kid with NUL", sign(`{"alg":"EdDSA","kid":"k1\u0000x"}`, claims), ""},
		{"brings its key", jws(w.keys[2], `{"alg":"EdDSA","kid":"k1","jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAA"}}`, claims), "not known"},
		{"points to its key", jws(w.keys[2], `{"alg":"EdDSA","kid":"k1","jku":"http://evil.example/keys"}`, claims), "not known"},
		{"certificate", jws(w.keys[2], `{"alg":"EdDSA","kid":"k1","x5c":["AAAA"]}`, claims), "not known"},
		{"crit", sign(`{"alg":"EdDSA","kid":"k1","crit":["exp"]}`, claims), "not known"},
		{"typ", sign(`{"alg":"EdDSA","kid":"k1","typ":"dpop+jwt"}`, claims), "typ"},
		{"expired", with(func(c *token.Claims) { c.Expires = time.Now().Add(-time.Hour) }), "expired"},
		{"not yet", with(func(c *token.Claims) { c.NotFrom = time.Now().Add(time.Hour) }), "not valid before"},
		{"for another cluster", with(func(c *token.Claims) { c.Audience = "other" }), "another cluster"},
		{"revoked", with(func(c *token.Claims) { c.ID = "lost" }), "revoked"},
		{"no end", sign(k1, `{"tenant":"victim","facets":["*"],"access":"admin"}`), "exp"},
		{"end in the year 10^300", sign(k1, `{"tenant":"victim","facets":["*"],"access":"admin","exp":1e300}`), "seconds"},
		{"tenant twice", sign(k1, `{"tenant":"mallory","tenant":"victim","facets":["*"],"access":"admin","exp":4102444800}`), "twice"},
		{"tenant twice, escaped", sign(k1, `{"tenant":"mallory","t\u0065nant":"victim","facets":["*"],"access":"admin","exp":4102444800}`), "twice"},
		{"claims of two kinds", sign(k1, `{"tenant":"victim","facets":["*"],"access":"admin","id":"victim/vault","exp":4102444800}`), "one kind"},
		{"access of a number", sign(k1, `{"tenant":"victim","facets":["*"],"access":3,"exp":4102444800}`), "access"},
		{"tenant of a list", sign(k1, `{"tenant":["victim"],"facets":["*"],"access":"admin","exp":4102444800}`), "tenant"},
		{"claims and more", sign(k1, claims+"{}"), "follows"},
		{"claims are no UTF-8", sign(k1, "{\"tenant\":\"victim\xff\"}"), "UTF-8"},
		{"deep claims", sign(k1, rep("[", 2000)), ""},
		{"other claims", good[0] + "." + strings.Split(w.root, ".")[1] + "." + good[2], "signature"},
		{"signature cut", w.victim[:len(w.victim)-2], "malformed"},
		{"trailing bytes", w.victim + "AAAA", "malformed"},
		{"padding", w.victim + "==", "malformed"},
		{"other alphabet", good[0] + "." + good[1] + "." + rep("+/", 43), "malformed"},
		{"four parts", w.victim + "." + good[2], "malformed"},
		{"in quotes", `"` + w.victim + `"`, "malformed"},
		{"with a comma", w.victim + ", " + w.victim, ""},
		{"9 KB", rep("a", 9<<10), "8192"},
	}
	return list
}

// TestTokens shows forged tokens at every door.
func TestTokens(t *testing.T) {
	w := newWorld(t, nil)
	was := inUse()
	list := w.forged()
	for _, in := range list {
		t.Run(in.name, func(t *testing.T) {
			w.t = t
			for _, door := range []request{
				{"", "POST", "/v1/db/victim/vault/exec", "SELECT * FROM gold", nil, 401, "unauthorized", in.text},
				{"", "GET", "/v1/facets/victim/vault/export", "", nil, 401, "unauthorized", in.text},
				{"", "DELETE", "/v1/facets/victim/vault", "", nil, 401, "unauthorized", in.text},
				{"", "POST", "/v1/db/victim/vault/v3/pipeline", `{"requests":[]}`, nil, 401, "unauthorized", in.text},
				{"", "PUT", "/v1/tenants/victim/freeze", "", nil, 401, "unauthorized", in.text},
			} {
				w.refuseOne(in.tok, &door)
			}
			for _, where := range []string{"header", "hello"} {
				header, hello := in.tok, ""
				if where == "hello" {
					header, hello = "", in.tok
				}
				c, r, status := w.upgrade(header)
				if status == http.StatusSwitchingProtocols {
					c.Write(wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1, Token: hello}))
					if e := w.nextError(r); e == nil || e.Code != facet.CodeUnauthorized && e.Code != facet.CodeBadRequest {
						t.Errorf("in the %s: %v", where, e)
					} else {
						w.clearText(e.Code.String(), e.Message)
					}
				} else if status != http.StatusUnauthorized {
					t.Errorf("in the %s: status %d", where, status)
				}
				c.Close()
			}
			w.unharmed()
		})
	}
	w.t = t
	w.back(was)
	t.Logf("%d tokens at 7 doors", len(list))
}
