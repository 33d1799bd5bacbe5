package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// execBody is what a client asks of exec.
type execBody struct {
	steps   []facet.Step
	offsets []int // where the SQL of each step begins in the body, for scripts
	several bool  // answer with "results", even if there is one
	script  int   // number of statements, if they run as a script; 0 otherwise
	ownTx   bool  // the SQL text begins a transaction of its own

	arrays   bool
	intsText bool
	atomic   *bool
	readOnly bool
	read     facet.ReadMode
	after    facet.Bookmark
	bookmark bool // the answer is to have one
	timeout  time.Duration
	key      facet.Key
	tx       facet.TxID
	begin    bool
	commit   bool
	rollback bool
}

// execDecoder reads the body of exec. What it returns aliases the body.
type execDecoder struct {
	*httpjson.Reader
	args facet.Values // of all statements so far
	sql  []byte       // "sql" of the request itself
	st   facet.Step   // its arguments
	has  struct{ sql, args, statements bool }
}

// decodeExec reads a body of any of the forms docs/HTTP.md lists.
func decodeExec(r *http.Request, src []byte) (*execBody, error) {
	b := &execBody{}
	if err := b.query(r.URL); err != nil {
		return nil, err
	}
	isJSON, err := bodyForm(r, src)
	if err != nil {
		return nil, err
	}
	if isJSON {
		err = b.fromJSON(src)
	} else {
		err = b.split(src)
	}
	if err == nil {
		err = b.header(r)
	}
	if err == nil {
		err = b.check()
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// bodyForm tells JSON from SQL: by the content type where the client chose one,
// and else by the first byte, for no SQL begins with a brace or a double quote.
// What curl says unasked counts as no choice.
func bodyForm(r *http.Request, src []byte) (isJSON bool, err error) {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); media {
	case "application/json":
		return true, nil
	case "application/sql", "text/plain":
		return false, nil
	case "", "application/x-www-form-urlencoded", "application/octet-stream":
		text := strings.TrimLeft(string(src[:min(len(src), 256)]), " \t\r\n")
		return text != "" && (text[0] == '{' || text[0] == '"'), nil
	}
	f := hinted("send application/json, or application/sql with SQL as the body", "content type %s is not accepted", shown(media))
	f.status = http.StatusUnsupportedMediaType
	return false, f
}

func (b *execBody) query(u *url.URL) error {
	if u.RawQuery == "" {
		return nil
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return badRequest("the query of the URL is malformed: %v", err)
	}
	for name, list := range values {
		if err := single(name, list); err != nil {
			return err
		}
		v := list[0]
		switch name {
		case "rows":
			err = b.setRows(v)
		case "ints":
			err = b.setInts(v)
		case "timeout_ms":
			n, perr := strconv.ParseInt(v, 10, 64)
			if err = b.setTimeout(n); perr != nil {
				err = badRequest("timeout_ms is not a number: %s", shown(v))
			}
		case "read_only":
			b.readOnly, err = parseBool(name, v)
		case "read":
			b.read, err = facet.ParseReadMode(v)
		case "bookmark":
			err = b.setBookmark(v)
		case "atomic":
			atomic, perr := parseBool(name, v)
			b.atomic, err = &atomic, perr
		default:
			err = hinted("there are rows, ints, timeout_ms, read_only, read, bookmark and atomic", "unknown query parameter %s", shown(name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseBool(name, v string) (bool, error) {
	switch v {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, badRequest("%s is true or false, not %s", name, shown(v))
}

// setBookmark takes a bookmark that was given before, or the wish for one.
func (b *execBody) setBookmark(v string) (err error) {
	if b.bookmark, err = parseBool("bookmark", v); err == nil {
		return nil
	}
	b.bookmark = true
	b.after, err = facet.ParseBookmark(v)
	return err
}

func (b *execBody) setRows(v string) error {
	if v != "objects" && v != "arrays" {
		return badRequest(`rows is "objects" or "arrays", not %s`, shown(v))
	}
	b.arrays = v == "arrays"
	return nil
}

func (b *execBody) setInts(v string) error {
	if v != "number" && v != "string" {
		return badRequest(`ints is "number" or "string", not %s`, shown(v))
	}
	b.intsText = v == "string"
	return nil
}

func (b *execBody) setTimeout(ms int64) error {
	if ms <= 0 || ms > maxTimeout.Milliseconds() {
		return badRequest("timeout_ms is between 1 and %d", maxTimeout.Milliseconds())
	}
	b.timeout = time.Duration(ms) * time.Millisecond
	return nil
}

// header takes the key of a request from its header. Every text is a client of
// its own with one request, so unrelated texts never get in each other's way.
func (b *execBody) header(r *http.Request) error {
	text := r.Header.Get(headerKey)
	if text == "" {
		return nil
	}
	if len(text) > maxIdempotencyKey {
		return limitError("idempotency_key", "the header %s has %d bytes, limit %d", headerKey, len(text), maxIdempotencyKey)
	}
	if !b.key.IsZero() {
		return badRequest(`"key" in the body and the header %s: send one`, headerKey)
	}
	sum := sha256.Sum256([]byte("facetd idempotency key\x00" + text))
	copy(b.key.Client[:], sum[:])
	b.key.N = 1
	return nil
}

// check refuses what does not go together.
func (b *execBody) check() error {
	inTx := b.begin || !b.tx.IsZero()
	switch {
	case b.begin && !b.tx.IsZero():
		return hinted("leave begin out to go on with tx", "begin and tx in one request")
	case b.begin && (b.commit || b.rollback):
		return hinted(`several statements are one transaction already: send {"statements":[…]}`, "begin and its end in one request")
	case b.commit && b.rollback:
		return badRequest("commit and rollback in one request")
	case (b.commit || b.rollback) && b.tx.IsZero():
		return hinted(`send the "tx" that begin answered with`, "commit or rollback without tx")
	case inTx && b.atomic != nil:
		return badRequest("atomic has no meaning inside of a transaction")
	case inTx && !b.key.IsZero():
		return hinted("only the effect of a whole request can be made idempotent", "an idempotency key inside of a transaction")
	case inTx && b.ownTx:
		return badRequest("the SQL begins a transaction inside of a transaction")
	case len(b.steps) == 0 && !inTx:
		return hinted(`send {"sql":"SELECT 1"} or the SQL itself as the body`, "there is no SQL statement")
	case !b.key.IsZero() && len(b.steps) > 1 && !b.isAtomic():
		return badRequest("an idempotency key goes with one statement or an atomic request")
	}
	return nil
}

// isAtomic reports whether the statements are one transaction of the service.
func (b *execBody) isAtomic() bool {
	if b.atomic != nil {
		return *b.atomic
	}
	return !b.ownTx && (len(b.steps) > 1 || b.script > 0)
}

// split makes steps of a SQL text without arguments.
func (b *execBody) split(text []byte) error {
	s := splitter{text: text}
	for start, end, ok := s.next(); ok; start, end, ok = s.next() {
		if len(b.steps) == maxScriptResults {
			return b.splitScript(text)
		}
		stmt := text[start:end:end]
		if err := checkSQL(stmt); err != nil {
			return err
		}
		b.steps = append(b.steps, facet.Step{SQL: stmt})
		b.ownTx = b.ownTx || beginsTransaction(stmt)
	}
	b.several = len(b.steps) > 1
	return nil
}

// splitScript packs a long text into few scripts, cut between statements.
func (b *execBody) splitScript(text []byte) error {
	b.steps, b.offsets, b.script, b.ownTx = nil, nil, 0, false
	s := splitter{text: text}
	from := 0
	flush := func(to int) error {
		if to == from {
			return nil
		}
		if len(b.steps) == facet.MaxSteps {
			return limitError("steps", "the SQL is longer than %d scripts of %d bytes", facet.MaxSteps, facet.MaxSQLLen)
		}
		b.steps = append(b.steps, facet.Step{SQL: text[from:to:to], Kind: facet.StepScript})
		b.offsets = append(b.offsets, from)
		from = to
		return nil
	}
	last := 0 // end of the last whole statement
	for start, end, ok := s.next(); ok; start, end, ok = s.next() {
		at := s.pos
		if at-from > facet.MaxSQLLen {
			if err := flush(last); err != nil {
				return err
			}
		}
		if at-from > facet.MaxSQLLen {
			return sqlTooLong(at - from)
		}
		last = at
		b.script++
		b.ownTx = b.ownTx || beginsTransaction(text[start:end])
	}
	return flush(last)
}

func checkSQL(sql []byte) error {
	if len(sql) > facet.MaxSQLLen {
		return sqlTooLong(len(sql))
	}
	return nil
}

func sqlTooLong(n int) error {
	return limitError("sql_bytes", "a statement has %d bytes, limit %d; give long values as arguments", n, facet.MaxSQLLen)
}

// fields calls f for every key of an object, which has each once; f reads the value.
func (d *execDecoder) fields(f func(key []byte) error) error {
	var names httpjson.Names
	return d.members(func(key []byte) error {
		if err := d.Once(&names, key); err != nil {
			return err
		}
		return f(key)
	})
}

// members is fields for objects whose keys are not ours.
func (d *execDecoder) members(f func(key []byte) error) error {
	if err := d.Object(); err != nil {
		return err
	}
	for {
		key, more, err := d.Key()
		if err != nil || !more {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// decodeObject reads a body that is one object and nothing else, as fields does.
func decodeObject(src []byte, f func(d *execDecoder, key []byte) error) error {
	r, err := httpjson.NewReader(src)
	if err != nil {
		return err
	}
	d := &execDecoder{Reader: r}
	if err := d.fields(func(key []byte) error { return f(d, key) }); err != nil {
		return err
	}
	return d.End()
}

func unknownField(key []byte, known string) error {
	return hinted("there are "+known, "unknown field %s", shown(string(key)))
}

func (b *execBody) fromJSON(src []byte) error {
	r, err := httpjson.NewReader(src)
	if err != nil {
		return err
	}
	d := &execDecoder{Reader: r}
	if d.Kind() == '"' {
		if d.sql, err = d.Str(); err != nil {
			return err
		}
		d.has.sql = true
	} else if err := d.fields(func(key []byte) error { return b.field(d, key) }); err != nil {
		return err
	}
	if err := d.End(); err != nil {
		return err
	}
	switch {
	case d.has.statements && (d.has.sql || d.has.args):
		return badRequest("sql or args beside statements: put them into the list")
	case d.has.args && !d.has.sql:
		return badRequest("args without sql")
	case d.has.sql && d.st.NArgs == 0:
		return b.split(d.sql)
	case d.has.sql:
		d.st.SQL = d.sql
		b.steps = []facet.Step{d.st}
		return checkSQL(d.sql)
	}
	return nil
}

func (b *execBody) field(d *execDecoder, key []byte) (err error) {
	switch string(key) {
	case "sql":
		d.sql, err = d.Str()
		d.has.sql = true
	case "args":
		d.has.args = true
		err = d.arguments(&d.st)
	case "statements":
		d.has.statements = true
		b.several = true
		b.steps = nil
		err = b.statements(d)
	case "rows":
		err = d.word(b.setRows)
	case "ints":
		err = d.word(b.setInts)
	case "atomic":
		var atomic bool
		atomic, err = d.Bool()
		b.atomic = &atomic
	case "read_only":
		var readOnly bool
		readOnly, err = d.Bool()
		b.readOnly = b.readOnly || readOnly
	case "read":
		err = d.word(func(v string) (err error) {
			b.read, err = facet.ParseReadMode(v)
			return err
		})
	case "bookmark":
		if d.Kind() == '"' {
			err = d.word(b.setBookmark)
		} else {
			b.bookmark, err = d.Bool()
		}
	case "timeout_ms":
		var n int64
		if n, err = d.Int(); err == nil {
			err = b.setTimeout(n)
		}
	case "key":
		if err = d.key(&b.key); err != nil {
			err = fmt.Errorf("key: %w", err)
		}
	case "tx":
		err = d.word(func(v string) error {
			if n, err := hex.Decode(b.tx[:], []byte(v[:min(len(v), 2*len(b.tx))])); err != nil || n != len(b.tx) || len(v) != 2*n || b.tx.IsZero() {
				return badRequest("tx is the id that begin answered with, 32 hexadecimal digits")
			}
			return nil
		})
	case "begin":
		b.begin, err = d.Bool()
	case "commit":
		b.commit, err = d.Bool()
	case "rollback":
		b.rollback, err = d.Bool()
	default:
		return unknownField(key, "sql, args, statements, rows, ints, atomic, read_only, read, bookmark, timeout_ms, key, tx, begin, commit and rollback")
	}
	return err
}

func (b *execBody) statements(d *execDecoder) error {
	if err := d.Array(); err != nil {
		return err
	}
	for {
		more, err := d.Elem()
		if err != nil || !more {
			return err
		}
		if len(b.steps) == facet.MaxSteps {
			return limitError("steps", "more than %d statements in one request", facet.MaxSteps)
		}
		var st facet.Step
		if err := d.statement(&st); err != nil {
			return fmt.Errorf("statement %d: %w", len(b.steps)+1, err)
		}
		b.steps = append(b.steps, st)
		b.ownTx = b.ownTx || beginsTransaction(st.SQL)
	}
}

// statement reads an element of statements: an object, or just the SQL.
func (d *execDecoder) statement(st *facet.Step) (err error) {
	there := false
	if d.Kind() == '"' {
		there = true
		st.SQL, err = d.Str()
	} else {
		err = d.fields(func(key []byte) (err error) {
			switch string(key) {
			case "sql":
				there = true
				st.SQL, err = d.Str()
			case "args":
				err = d.arguments(st)
			default:
				err = unknownField(key, "sql and args")
			}
			return err
		})
	}
	if err == nil && !there {
		err = badRequest("there is no sql")
	}
	if err == nil {
		err = checkSQL(st.SQL)
	}
	return err
}

// word reads a short string and gives it to f.
func (d *execDecoder) word(f func(string) error) error {
	s, err := d.Str()
	if err != nil {
		return err
	}
	return f(string(s))
}

func (d *execDecoder) key(k *facet.Key) error {
	err := d.fields(func(name []byte) error {
		switch string(name) {
		case "client":
			return d.word(func(v string) error {
				v = strings.ReplaceAll(v, "-", "")
				if n, err := hex.Decode(k.Client[:], []byte(v[:min(len(v), 2*len(k.Client))])); err != nil || n != len(k.Client) || len(v) != 2*n {
					return badRequest("client is 32 hexadecimal digits, drawn at random once by the client")
				}
				return nil
			})
		case "n":
			n, err := d.Int()
			if err == nil && n <= 0 {
				err = badRequest("n counts the client's requests, from 1")
			}
			k.N = uint64(max(n, 0))
			return err
		}
		return unknownField(name, "client and n")
	})
	if err == nil && (k.N == 0 || k.Client == [16]byte{}) {
		err = badRequest("a key has client and n")
	}
	return err
}
