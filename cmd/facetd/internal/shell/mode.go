package shell

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"

	"github.com/facetd/facetd/facet"
)

// Mode is how rows are printed.
type Mode string

// The modes.
const (
	ModeTable    Mode = "table"
	ModeCSV      Mode = "csv"
	ModeJSON     Mode = "json"
	ModeLine     Mode = "line"
	ModeTabs     Mode = "tabs"
	ModeMarkdown Mode = "markdown"
	ModeInsert   Mode = "insert"
)

// Modes lists them all.
var Modes = []Mode{ModeTable, ModeCSV, ModeJSON, ModeLine, ModeTabs, ModeMarkdown, ModeInsert}

// ParseMode checks the name of a mode.
func ParseMode(s string) (Mode, error) {
	names := make([]string, len(Modes))
	for i, m := range Modes {
		if string(m) == s {
			return m, nil
		}
		names[i] = string(m)
	}
	return "", fmt.Errorf("unknown mode %q: there are %s", s, strings.Join(names, ", "))
}

// format is how a printer prints.
type format struct {
	mode     Mode
	headers  bool
	null     string // what NULL looks like, in table, line, tabs, csv and markdown
	table    string // the table's name in mode insert
	width    int    // cut lines of tables to this many columns; 0 for never
	terminal bool   // control characters must not reach the output
}

// printer prints one result. The bytes of a row are valid during the call only.
type printer interface {
	begin(cols []string) error
	row(vals []facet.Value) error
	end() error
}

func (f format) printer(w *bufio.Writer) printer {
	switch f.mode {
	case ModeTable:
		return &tablePrinter{format: f, w: w}
	case ModeCSV:
		return &csvPrinter{format: f, w: w}
	case ModeJSON:
		return &jsonPrinter{w: w}
	case ModeLine:
		return &linePrinter{format: f, w: w}
	case ModeMarkdown:
		return &markdownPrinter{format: f, w: w}
	case ModeInsert:
		return &insertPrinter{format: f, w: w}
	}
	return &tabsPrinter{format: f, w: w}
}

// text is a value as people read it.
func (f *format) text(v facet.Value) string {
	switch v.Type {
	case facet.Integer:
		return strconv.FormatInt(v.Int, 10)
	case facet.Float:
		return floatText(v.Float)
	case facet.Text:
		return string(v.Bytes)
	case facet.Blob:
		return blobText(v.Bytes)
	}
	return f.null
}

func blobText(b []byte) string { return fmt.Sprintf("X'%X'", b) }

// floatText keeps a float looking like one.
func floatText(x float64) string {
	switch {
	case math.IsInf(x, 1):
		return "Inf"
	case math.IsInf(x, -1):
		return "-Inf"
	case math.IsNaN(x):
		return "NaN"
	}
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// literal is a value as SQL.
func literal(v facet.Value) string {
	switch v.Type {
	case facet.Float:
		switch {
		case math.IsInf(v.Float, 1):
			return "9e999"
		case math.IsInf(v.Float, -1):
			return "-9e999"
		}
		return floatText(v.Float)
	case facet.Integer:
		return strconv.FormatInt(v.Int, 10)
	case facet.Text:
		s := string(v.Bytes)
		if strings.IndexByte(s, 0) >= 0 {
			return "CAST(" + blobText(v.Bytes) + " AS TEXT)" // a literal ends at NUL
		}
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	case facet.Blob:
		return blobText(v.Bytes)
	}
	return "NULL"
}

// ident quotes a name for SQL.
func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// visible makes control characters harmless and keeps a cell on one line: data of
// a tenant must not steer the terminal of whoever looks at it.
func visible(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != '\u200d':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

type tabsPrinter struct {
	format
	w *bufio.Writer
}

func (p *tabsPrinter) begin(cols []string) error {
	if p.headers {
		return p.line(cols)
	}
	return nil
}

func (p *tabsPrinter) row(vals []facet.Value) error {
	cells := make([]string, len(vals))
	for i, v := range vals {
		cells[i] = p.text(v)
	}
	return p.line(cells)
}

func (p *tabsPrinter) line(cells []string) error {
	for i, c := range cells {
		if i > 0 {
			p.w.WriteByte('\t')
		}
		if p.terminal {
			c = visible(c)
		}
		p.w.WriteString(c)
	}
	return p.w.WriteByte('\n')
}

func (p *tabsPrinter) end() error { return nil }

// csvPrinter writes RFC 4180 with line feeds. NULL is an empty field and the empty
// text a quoted one, so that they differ.
type csvPrinter struct {
	format
	w *bufio.Writer
}

func (p *csvPrinter) begin(cols []string) error {
	if !p.headers {
		return nil
	}
	for i, c := range cols {
		p.field(i, c, true)
	}
	return p.w.WriteByte('\n')
}

func (p *csvPrinter) row(vals []facet.Value) error {
	for i, v := range vals {
		p.field(i, p.text(v), v.Type == facet.Text)
	}
	return p.w.WriteByte('\n')
}

func (p *csvPrinter) field(i int, s string, isText bool) {
	if i > 0 {
		p.w.WriteByte(',')
	}
	if !strings.ContainsAny(s, ",\"\r\n") && (s != "" || !isText) && strings.TrimSpace(s) == s {
		p.w.WriteString(s)
		return
	}
	p.w.WriteByte('"')
	p.w.WriteString(strings.ReplaceAll(s, `"`, `""`))
	p.w.WriteByte('"')
}

func (p *csvPrinter) end() error { return nil }

// jsonPrinter writes an array of objects. Blobs are {"blob": base64}, as in the
// HTTP API.
type jsonPrinter struct {
	w    *bufio.Writer
	keys [][]byte
	rows int
}

func (p *jsonPrinter) begin(cols []string) error {
	for _, c := range cols {
		p.keys = append(p.keys, jsonString(c))
	}
	return p.w.WriteByte('[')
}

func (p *jsonPrinter) row(vals []facet.Value) error {
	if p.rows++; p.rows > 1 {
		p.w.WriteString(",\n")
	}
	p.w.WriteByte('{')
	for i, v := range vals {
		if i > 0 {
			p.w.WriteByte(',')
		}
		p.w.Write(p.keys[i])
		p.w.WriteByte(':')
		p.w.Write(jsonValue(v))
	}
	return p.w.WriteByte('}')
}

func (p *jsonPrinter) end() error {
	_, err := p.w.WriteString("]\n")
	return err
}

func jsonString(s string) []byte {
	b, _ := json.Marshal(s) // a string never fails
	return b
}

func jsonValue(v facet.Value) []byte {
	switch v.Type {
	case facet.Integer:
		return strconv.AppendInt(nil, v.Int, 10)
	case facet.Float:
		if math.IsNaN(v.Float) {
			return []byte("null")
		}
		return []byte(literal(v))
	case facet.Text:
		return jsonString(string(v.Bytes))
	case facet.Blob:
		return []byte(`{"blob":"` + base64.StdEncoding.EncodeToString(v.Bytes) + `"}`)
	}
	return []byte("null")
}

// linePrinter writes one value a line and an empty line between rows.
type linePrinter struct {
	format
	w     *bufio.Writer
	names []string
	rows  int
}

func (p *linePrinter) begin(cols []string) error {
	widest := 0
	for _, c := range cols {
		c = visible(c)
		widest = max(widest, runewidth.StringWidth(c))
		p.names = append(p.names, c)
	}
	for i, c := range p.names {
		p.names[i] = strings.Repeat(" ", widest-runewidth.StringWidth(c)) + c
	}
	return nil
}

func (p *linePrinter) row(vals []facet.Value) error {
	if p.rows++; p.rows > 1 {
		p.w.WriteByte('\n')
	}
	for i, v := range vals {
		s := p.text(v)
		if p.terminal {
			s = visible(s)
		}
		if _, err := fmt.Fprintf(p.w, "%s = %s\n", p.names[i], s); err != nil {
			return err
		}
	}
	return nil
}

func (p *linePrinter) end() error { return nil }

type markdownPrinter struct {
	format
	w *bufio.Writer
}

func (p *markdownPrinter) begin(cols []string) error {
	p.line(cols)
	for range cols {
		p.w.WriteString("|---")
	}
	_, err := io.WriteString(p.w, "|\n")
	return err
}

func (p *markdownPrinter) row(vals []facet.Value) error {
	cells := make([]string, len(vals))
	for i, v := range vals {
		cells[i] = p.text(v)
	}
	return p.line(cells)
}

func (p *markdownPrinter) line(cells []string) error {
	for _, c := range cells {
		fmt.Fprintf(p.w, "| %s ", strings.ReplaceAll(visible(c), "|", `\|`))
	}
	_, err := p.w.WriteString("|\n")
	return err
}

func (p *markdownPrinter) end() error { return nil }

type insertPrinter struct {
	format
	w    *bufio.Writer
	into string
}

func (p *insertPrinter) begin(cols []string) error {
	p.into = "INSERT INTO " + ident(p.table)
	if p.headers {
		names := make([]string, len(cols))
		for i, c := range cols {
			names[i] = ident(c)
		}
		p.into += "(" + strings.Join(names, ",") + ")"
	}
	return nil
}

func (p *insertPrinter) row(vals []facet.Value) error {
	p.w.WriteString(p.into)
	p.w.WriteString(" VALUES(")
	for i, v := range vals {
		if i > 0 {
			p.w.WriteByte(',')
		}
		p.w.WriteString(literal(v))
	}
	_, err := p.w.WriteString(");\n")
	return err
}

func (p *insertPrinter) end() error { return nil }
