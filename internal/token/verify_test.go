package token

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func newKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), ed25519.SeedSize)))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func keyFile(t testing.TB, revoked string, keys ...JWK) *Keys {
	t.Helper()
	list, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	if revoked == "" {
		revoked = "[]"
	}
	k, err := ParseKeys([]byte(`{"keys":` + string(list) + `,"revoked":` + revoked + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// jws signs any header and payload.
func jws(key ed25519.PrivateKey, header, payload string) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload))
	return signed + "." + enc.EncodeToString(ed25519.Sign(key, []byte(signed)))
}

const (
	head   = `{"alg":"EdDSA","typ":"JWT","kid":"k1"}`
	claims = `"tenant":"acme","facets":["*"],"access":"rw"`
	later  = `,"exp":1796000000`
)

// TestGolden: tokens and files of keys that people have must be good in later releases.
func TestGolden(t *testing.T) {
	const (
		file  = `[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"LfBBJfABWvtHzoU674dyCU_5SYwUyxueEpc8KSfaD6Y","tenant":"acme"}]`
		token = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0." +
			"eyJ0ZW5hbnQiOiJhY21lIiwiZmFjZXRzIjpbIm5vdGVzIiwidXNlci0qIl0sImFjY2VzcyI6InJ3Iiwic3ViIjoiYXBwIiwianRpIjoidDEiLCJpYXQiOjE3OTU5NTM2MDAsImV4cCI6MTc5NjA0MDAwMH0." +
			"O_yaxXItDunKXHjq5WHWRIhhOgcyhXTX9y7rnDwFbFgXmbrQQhgYIdTEkzXq2FwnwWo9Ayr4zhNtA7t0ysFvDw"
	)
	key := newKey(1)
	got, err := Sign(key, "k1", Claims{Tenant: "acme", Facets: []string{"notes", "user-*"}, Access: Write, Subject: "app", ID: "t1",
		Issued: now, Expires: now.Add(24 * time.Hour)})
	if err != nil || got != token {
		t.Errorf("a token is %s, %v", got, err)
	}
	list, err := json.Marshal([]JWK{NewJWK(public(key), "k1", "acme")})
	if err != nil || string(list) != file {
		t.Errorf("keys are %s, %v", list, err)
	}
	keys, err := ParseKeys([]byte(`{"keys":` + file + `}`))
	if err != nil {
		t.Fatal(err)
	}
	g, err := keys.Verify(token, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if a := g.Facet(facet.Name{Tenant: "acme", Facet: "user-7"}); a != Write {
		t.Errorf("it gives %v", a)
	}
	if a := g.Facet(facet.Name{Tenant: "acme", Facet: "other"}); a != None {
		t.Errorf("it gives %v to another facet", a)
	}
}

func TestVerify(t *testing.T) {
	one, two, acme, nameless := newKey(1), newKey(2), newKey(3), newKey(4)
	bare := NewJWK(public(nameless), "", "")
	bare.Kid = ""
	keys := keyFile(t, `[{"jti":"lost"},{"kid":"k2"}]`, NewJWK(public(one), "k1", ""), NewJWK(public(two), "k2", ""), NewJWK(public(acme), "acme-1", "acme"), bare)

	own := func(more string) string { return jws(one, head, `{`+claims+later+more+`}`) }
	good := own("")
	enc := base64.RawURLEncoding
	parts := strings.Split(good, ".")
	mac := func(secret []byte) string {
		signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT","kid":"k1"}`)) + "." + parts[1]
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(signed))
		return signed + "." + enc.EncodeToString(h.Sum(nil))
	}
	long := enc.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k1","typ":"` + strings.Repeat("x", 2000) + `"}`))
	// The last character of a signature carries four bits that count and two that do not.
	slack := good[:len(good)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", good[len(good)-1])|1])

	for _, c := range []struct{ name, tok, why string }{
		{"good", good, ""},
		{"good, without typ", jws(one, `{"kid":"k1","alg":"EdDSA"}`, `{`+claims+later+`}`), ""},
		{"good, sqld", jws(nameless, `{"typ":"JWT","alg":"EdDSA"}`, `{"id":"acme/notes","a":"ro"}`), ""},
		{"good, sqld's p", jws(one, head, `{"p":{"rw":{"ns":["acme/notes"]},"roa":{"ns":["acme/log-*"]},"ro":null}}`), ""},
		{"good, key of the tenant", jws(acme, `{"alg":"EdDSA","kid":"acme-1"}`, `{`+claims+later+`}`), ""},
		{"good, for us", own(`,"aud":["other","facetd"]`), ""},
		{"good, unknown claim", own(`,"org":{"a":[1,{"a":2,"a":3}]}`), ""},
		{"within the leeway", jws(one, head, `{`+claims+`,"exp":`+unix(-29*time.Second)+`,"nbf":`+unix(29*time.Second)+`}`), ""},

		{"empty", "", "three parts"},
		{"huge", strings.Repeat("a", MaxToken+1), "too long"},
		{"two parts", parts[0] + "." + parts[1], "three parts"},
		{"four parts", good + ".", "three parts"},
		{"JSON serialization", `{"payload":"e30","signatures":[{"protected":"e30","signature":"e30"}]}`, "three parts"},
		{"no signature", parts[0] + "." + parts[1] + ".", "empty"},
		{"short signature", parts[0] + "." + parts[1] + "." + parts[2][:40], "wrong length"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "base64url"},
		{"other alphabet", strings.Replace(parts[0], "e", "+", 1) + "." + parts[1] + "." + parts[2], "base64url"},
		{"line break", parts[0] + "\n." + parts[1] + "." + parts[2], "line break"},
		{"slack bits", slack, "base64url"},
		{"long header", long + "." + parts[1] + "." + parts[2], "header is too long"},

		{"alg none", enc.EncodeToString([]byte(`{"alg":"none","kid":"k1"}`)) + "." + parts[1] + ".", "empty"},
		{"alg none, signed", jws(one, `{"alg":"none","kid":"k1"}`, `{`+claims+later+`}`), "alg is not"},
		{"alg eddsa", jws(one, `{"alg":"eddsa","kid":"k1"}`, `{`+claims+later+`}`), "alg is not"},
		{"no alg", jws(one, `{"kid":"k1"}`, `{`+claims+later+`}`), "alg is not"},
		{"alg is an array", jws(one, `{"alg":["EdDSA"],"kid":"k1"}`, `{`+claims+later+`}`), "alg is not"},
		{"HS256 with the public key", mac(public(one)), "wrong length"},
		{"HS256, signed with Ed25519", jws(one, `{"alg":"HS256","kid":"k1"}`, `{`+claims+later+`}`), "alg is not"},
		{"two algs", jws(one, `{"alg":"none","alg":"EdDSA","kid":"k1"}`, `{`+claims+later+`}`), "twice"},
		{"Alg", jws(one, `{"Alg":"EdDSA","kid":"k1"}`, `{`+claims+later+`}`), "not known"},
		{"wrong typ", jws(one, `{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}`, `{`+claims+later+`}`), "typ is not"},
		{"crit", jws(one, `{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`, `{`+claims+later+`}`), "not known"},
		{"brings its key", jws(newKey(9), `{"alg":"EdDSA","kid":"k1","jwk":{"kty":"OKP"}}`, `{`+claims+later+`}`), "not known"},
		{"header is an array", jws(one, `["EdDSA"]`, `{`+claims+later+`}`), "not a JSON object"},
		{"header and more", jws(one, head+`{}`, `{`+claims+later+`}`), "follows"},

		{"wrong key", jws(two, head, `{`+claims+later+`}`), "signature is wrong"},
		{"unknown kid", jws(one, `{"alg":"EdDSA","kid":"k9"}`, `{`+claims+later+`}`), "not known here"},
		{"empty kid", jws(nameless, `{"alg":"EdDSA","kid":""}`, `{`+claims+later+`}`), "kid is empty"},
		{"no kid, key has one", jws(one, `{"alg":"EdDSA"}`, `{`+claims+later+`}`), "signature is wrong"},
		{"kid is a number", jws(one, `{"alg":"EdDSA","kid":1}`, `{`+claims+later+`}`), "not a string"},
		{"other claims", parts[0] + "." + enc.EncodeToString([]byte(`{"tenant":"*","facets":["*"],"access":"admin"`+later+`}`)) + "." + parts[2], "signature is wrong"},
		{"other header", enc.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + parts[1] + "." + parts[2], "signature is wrong"},

		{"expired", jws(one, head, `{`+claims+`,"exp":`+unix(-30*time.Second)+`}`), "expired at 2026"},
		{"not yet", own(`,"nbf":` + unix(31*time.Second)), "not valid before 2026"},
		{"expired, sqld", jws(one, head, `{"id":"acme/notes","exp":1}`), "expired at 1970"},
		{"never expires", jws(one, head, `{`+claims+`}`), `"exp" is missing`},
		{"exp null", jws(one, head, `{`+claims+`,"exp":null}`), "seconds since 1970"},
		{"exp text", jws(one, head, `{`+claims+`,"exp":"1796000000"}`), "seconds since 1970"},
		{"exp huge", jws(one, head, `{`+claims+`,"exp":1e300}`), "seconds since 1970"},
		{"exp negative", jws(one, head, `{`+claims+`,"exp":-1}`), "seconds since 1970"},
		{"revoked", own(`,"jti":"lost"`), "revoked"},
		{"revoked key", jws(two, `{"alg":"EdDSA","kid":"k2"}`, `{`+claims+later+`}`), "revoked: its key"},
		{"for others", own(`,"aud":"other"`), "another cluster"},
		{"for nobody", own(`,"aud":[]`), "names nobody"},
		{"aud is a number", own(`,"aud":1`), "aud"},

		{"other tenant's key", jws(acme, `{"alg":"EdDSA","kid":"acme-1"}`, `{"tenant":"bolt","facets":["*"],"access":"rw"`+later+`}`), "more than tenant acme"},
		{"supervisor by a tenant's key", jws(acme, `{"alg":"EdDSA","kid":"acme-1"}`, `{"tenant":"*","facets":["*"],"access":"admin"`+later+`}`), "more than tenant acme"},
		{"sqld, two tenants by a tenant's key", jws(acme, `{"alg":"EdDSA","kid":"acme-1"}`, `{"p":{"ro":{"ns":["acme/a","bolt/b"]}}}`), "more than tenant acme"},

		{"no claims", jws(one, head, `{}`), "does not say what it opens"},
		{"only exp", jws(one, head, `{"exp":1796000000}`), "does not say what it opens"},
		{"both kinds", own(`,"id":"acme/notes"`), "use one kind"},
		{"tenant alone", jws(one, head, `{"tenant":"acme"`+later+`}`), "go together"},
		{"facet for facets", jws(one, head, `{"tenant":"acme","facet":"notes","access":"rw"`+later+`}`), "go together"},
		{"Facets for facets", jws(one, head, `{"tenant":"acme","Facets":["notes"],"access":"rw"`+later+`}`), "go together"},
		{"no facets", jws(one, head, `{"tenant":"acme","facets":[],"access":"rw"`+later+`}`), "go together"},
		{"facets null", jws(one, head, `{"tenant":"acme","facets":null,"access":"rw"`+later+`}`), "array of strings"},
		{"facets of null", jws(one, head, `{"tenant":"acme","facets":[null],"access":"rw"`+later+`}`), "array of strings"},
		{"facets a string", jws(one, head, `{"tenant":"acme","facets":"*","access":"rw"`+later+`}`), "array of strings"},
		{"odd pattern", jws(one, head, `{"tenant":"acme","facets":["a*b"],"access":"rw"`+later+`}`), "neither the name"},
		{"too many", jws(one, head, `{"tenant":"acme","facets":[`+strings.Repeat(`"a",`, MaxRules)+`"a"],"access":"rw"`+later+`}`), "limit 64"},
		{"access", jws(one, head, `{"tenant":"acme","facets":["*"],"access":"root"`+later+`}`), "ro, rw or admin"},
		{"supervisor of some facets", jws(one, head, `{"tenant":"*","facets":["a"],"access":"rw"`+later+`}`), `are ["*"]`},
		{"tenant twice", own(`,"tenant":"*"`), "twice"},
		{"tenant twice, escaped", own(`,"t\u0065nant":"*"`), "twice"},
		{"not a tenant", jws(one, head, `{"tenant":"ACME","facets":["*"],"access":"rw"`+later+`}`), "name of a tenant"},
		{"payload is no JSON", jws(one, head, `{`), "not valid JSON"},
		{"payload and more", jws(one, head, `{`+claims+later+`} {}`), "follows"},
		{"payload is no UTF-8", jws(one, head, "{\"tenant\":\"acme\xff\"}"), "UTF-8"},
		{"sub in lines", own(`,"sub":"a\nb"`), "printable"},
		{"long jti", own(`,"jti":"` + strings.Repeat("x", MaxLabel+1) + `"`), "limit 128"},

		{"sqld, only a", jws(one, head, `{"a":"rw"}`), "names no database"},
		{"sqld, namespace", jws(one, head, `{"id":"acme"}`), "names no database"},
		{"sqld, all tenants", jws(one, head, `{"id":"*/*"}`), "name of a tenant"},
		{"sqld, admin", jws(one, head, `{"id":"acme/notes","a":"admin"}`), `neither "ro" nor "rw"`},
		{"sqld, id and p", jws(one, head, `{"id":"acme/notes","p":{"ro":{"ns":["acme/notes"]}}}`), "differently"},
		{"sqld, empty p", jws(one, head, `{"p":{}}`), "names no database"},
		{"sqld, unknown in p", jws(one, head, `{"p":{"ddl":{"ns":["acme/notes"]}}}`), "not known"},
		{"sqld, p twice", jws(one, head, `{"p":{"ro":{"ns":["acme/a"]},"ro":{"ns":["acme/b"]}}}`), "twice"},
		{"sqld, tags", jws(one, head, `{"p":{"rw":{"ns":["acme/a"],"tags":["x"]}}}`), "not known"},
	} {
		g, err := keys.Verify(c.tok, "facetd", now)
		if c.why == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: let in: %v", c.name, g.Reach())
			continue
		}
		if !errors.Is(err, facet.ErrUnauthorized) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v; want %q", c.name, err, c.why)
		}
	}
}

func unix(d time.Duration) string {
	b, _ := json.Marshal(now.Add(d).Unix())
	return string(b)
}

func TestGrant(t *testing.T) {
	key := newKey(1)
	keys := keyFile(t, "", NewJWK(public(key), "k1", ""))
	grant := func(payload string) *Grant {
		g, err := keys.Verify(jws(key, head, payload), "facetd", now)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	some := grant(`{"tenant":"acme","facets":["notes","log-*"],"access":"ro"` + later + `}`)
	all := grant(`{"tenant":"acme","facets":["*"],"access":"admin"` + later + `}`)
	root := grant(`{"tenant":"*","facets":["*"],"access":"admin"` + later + `}`)
	watcher := grant(`{"tenant":"*","facets":["*"],"access":"ro"` + later + `}`)
	mixed := grant(`{"p":{"ro":{"ns":["acme/*"]},"rw":{"ns":["acme/notes","bolt/a"]}}}`)
	for _, c := range []struct {
		g    *Grant
		name string
		want Access
	}{
		{some, "acme/notes", Read}, {some, "acme/log-1", Read}, {some, "acme/log-", Read}, {some, "acme/log", None},
		{some, "acme/notes2", None}, {some, "bolt/notes", None},
		{all, "acme/x", Admin}, {all, "acme2/x", None}, {all, "acm/x", None},
		{root, "any/x", Admin}, {watcher, "any/x", Read},
		{mixed, "acme/notes", Write}, {mixed, "acme/x", Read}, {mixed, "bolt/a", Write}, {mixed, "bolt/b", None},
	} {
		n, err := facet.ParseName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.g.Facet(n); got != c.want {
			t.Errorf("%v: %s is %v, want %v", c.g.Reach(), c.name, got, c.want)
		}
	}
	if some.Cluster() != None || all.Cluster() != None || mixed.Cluster() != None || root.Cluster() != Admin || watcher.Cluster() != Read {
		t.Error("who may touch the cluster is wrong")
	}
	if mixed.Tenant("acme") != Write || mixed.Tenant("bolt") != Write || mixed.Tenant("zeta") != None || root.Tenant("zeta") != Admin {
		t.Error("what tenants may be reached is wrong")
	}
	for _, c := range []struct {
		g           *Grant
		after, from string
		ok          bool
	}{
		{some, "", "log-", true}, {some, "log-", "log-", true}, {some, "log-5", "log-5", true}, {some, "log.", "notes", true},
		{some, "m", "notes", true}, {some, "notes", "", false}, {some, "z", "", false},
		{all, "", "", true}, {all, "q", "q", true}, {root, "q", "q", true},
	} {
		if from, ok := c.g.Seek("acme", c.after); from != c.from || ok != c.ok {
			t.Errorf("%v: after %q comes %q, %v; want %q, %v", c.g.Reach(), c.after, from, ok, c.from, c.ok)
		}
	}
	if _, ok := some.Seek("bolt", ""); ok {
		t.Error("another tenant's facets are listed")
	}
}

// A grant is kept while its token is used, so the moment is judged again.
func TestCheckLater(t *testing.T) {
	key := newKey(1)
	keys := keyFile(t, "", NewJWK(public(key), "", ""))
	tok, err := Sign(key, Thumbprint(public(key)), Claims{Tenant: "acme", Facets: []string{"*"}, Access: Write, Issued: now, Expires: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	g, err := keys.Verify(tok, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Check(now.Add(time.Minute + Leeway - 1)); err != nil {
		t.Error(err)
	}
	if err := g.Check(g.Until()); !errors.Is(err, facet.ErrUnauthorized) {
		t.Errorf("an expired grant: %v", err)
	}
}

func TestSignRefusesWhatVerifyDoes(t *testing.T) {
	key := newKey(1)
	good := Claims{Tenant: "acme", Facets: []string{"*"}, Access: Write, Expires: now}
	for name, change := range map[string]func(*Claims){
		"no facets": func(c *Claims) { c.Facets = nil },
		"access":    func(c *Claims) { c.Access = None },
		"tenant":    func(c *Claims) { c.Tenant = "A" },
		"subject":   func(c *Claims) { c.Subject = "\n" },
	} {
		c := good
		change(&c)
		if tok, err := Sign(key, "k", c); err == nil {
			t.Errorf("%s: signed %s", name, tok)
		}
	}
	if _, err := Sign(key, "k\n", good); err == nil {
		t.Error("signed with an odd kid")
	}
}

func TestParseKeysRefuses(t *testing.T) {
	x := NewJWK(public(newKey(1)), "a", "").X
	y := NewJWK(public(newKey(2)), "a", "").X
	ok := `"kty":"OKP","crv":"Ed25519","x":"` + x + `"`
	many := make([]string, maxNameless+1)
	for i := range many {
		many[i] = `{"kty":"OKP","crv":"Ed25519","x":"` + NewJWK(public(newKey(byte(i))), "", "").X + `"}`
	}
	for _, c := range []struct{ src, why string }{
		{``, "not a JSON object"}, {`[]`, "not a JSON object"}, {`{}`, "no key in it"}, {`{"keys":[]}`, "no key in it"},
		{`{"keys":{}}`, "not an array"}, {`{"key":[]}`, "not known"}, {`{"keys":[],"keys":[]}`, "twice"},
		{`{"keys":[1]}`, "not a JSON object"},
		{`{"keys":[{"kty":"RSA","n":"x","e":"AQAB"}]}`, "not known"},
		{`{"keys":[{"kty":"EC","crv":"P-256","x":"` + x + `"}]}`, "only keys of Ed25519"},
		{`{"keys":[{"kty":"OKP","crv":"X25519","x":"` + x + `"}]}`, "only keys of Ed25519"},
		{`{"keys":[{` + ok + `,"d":"` + x + `"}]}`, "private key"},
		{`{"keys":[{` + ok + `,"tenants":["acme"]}]}`, "not known"},
		{`{"keys":[{` + ok + `,"tenant":""}]}`, "tenant"},
		{`{"keys":[{` + ok + `,"alg":"HS256"}]}`, "alg"}, {`{"keys":[{` + ok + `,"use":"enc"}]}`, "use"},
		{`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}`, "32 bytes"},
		{`{"keys":[{` + ok + `,"kid":"a"},{` + ok + `,"kid":"b"}]}`, "already"},
		{`{"keys":[{` + ok + `,"kid":"a"},{"kty":"OKP","crv":"Ed25519","x":"` + y + `","kid":"a"}]}`, "another key"},
		{`{"keys":[` + strings.Join(many, ",") + `]}`, "would be tried"},
		{`{"keys":[{` + ok + `}],"revoked":[{}]}`, "write"}, {`{"keys":[{` + ok + `}],"revoked":["a"]}`, "not a JSON object"},
		{`{"keys":[{` + ok + `}],"revoked":[{"jti":""}]}`, "empty"}, {`{"keys":[{` + ok + `}],"revoked":[{"jti":"a","kid":"b"}]}`, "write"},
		{`{"keys":[{` + ok + `}]}` + strings.Repeat(" ", MaxFile), "limit"},
	} {
		if _, err := ParseKeys([]byte(c.src)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%.120s: %v; want %q", c.src, err, c.why)
		}
	}
}

// For each of the weak keys a signature is found without knowing anything: so the
// list is of weak keys, and the key of the test is not one.
func TestWeakKeys(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // R is the neutral element, S zero: right for whatever has a hash the order divides
	signs := func(key []byte) bool {
		for i := range 256 {
			if ed25519.Verify(key, []byte{byte(i)}, forged) {
				return true
			}
		}
		return false
	}
	for text := range strings.FieldsSeq(weakKeys) {
		key, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if !signs(key) || !weak(key) {
			t.Errorf("%s is not weak", text)
		}
		key[31] |= 0x80
		if !weak(key) {
			t.Errorf("%s with a sign is not weak", text)
		}
		if _, err := ParseKeys([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}]}`)); err == nil {
			t.Errorf("%s was taken for a key", text)
		}
	}
	if k := public(newKey(1)); signs(k) || weak(k) {
		t.Error("a good key is weak")
	}
}

// RFC 8037, appendix A.3.
func TestThumbprint(t *testing.T) {
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if got := Thumbprint(x); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Error(got)
	}
}

// Whatever is verified opens only what it says, and reads the same for a person.
func FuzzVerify(f *testing.F) {
	key := newKey(1)
	bare := NewJWK(public(key), "", "")
	bare.Kid = ""
	keys := keyFile(f, "", NewJWK(public(newKey(2)), "k1", ""), bare)
	f.Add(jws(key, head, `{`+claims+later+`}`), head, `{`+claims+later+`}`)
	f.Add("a.b.c", `{"alg":"EdDSA"}`, `{"p":{"ro":{"ns":["acme/notes"]},"rwa":{"ns":["bolt/*"]}}}`)
	f.Add("", `{"alg":"none"}`, `{"id":"acme/*","a":"ro","aud":["facetd"]}`)
	f.Fuzz(func(t *testing.T, tok, header, payload string) {
		if g, err := keys.Verify(tok, "facetd", now); err == nil {
			t.Fatalf("let in, and nobody signed it: %v", g.Reach())
		}
		signed := jws(key, header, payload)
		g, err := keys.Verify(signed, "facetd", now)
		if err != nil {
			if !errors.Is(err, facet.ErrUnauthorized) {
				t.Fatal(err)
			}
			return
		}
		if !json.Valid([]byte(payload)) || !json.Valid([]byte(header)) {
			t.Fatalf("took %q . %q", header, payload)
		}
		if len(g.Reach()) == 0 {
			t.Fatal("opens nothing")
		}
		if g.all == None && g.Facet(facet.Name{Tenant: "nobody-at-all", Facet: "x"}) != None && !strings.Contains(payload, "nobody") {
			t.Fatalf("opens too much: %v", g.Reach())
		}
		if _, _, _, seen, err := Look(signed); err != nil || strings.Join(seen.Reach(), ";") != strings.Join(g.Reach(), ";") {
			t.Fatalf("a person sees another token: %v", err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"` + NewJWK(public(newKey(1)), "", "").X + `","tenant":"acme"}],"revoked":[{"jti":"x"}]}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if k, err := ParseKeys(src); err == nil && (k.Len() == 0 || len(k.byID)+len(k.nameless) != len(k.public)) {
			t.Fatalf("%d keys", k.Len())
		}
	})
}
