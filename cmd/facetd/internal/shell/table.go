package shell

import (
	"bufio"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/facetd/facetd/facet"
)

// tablePrinter aligns columns. It holds rows back to learn how wide they are, up
// to a bound; what comes later is fitted to the widths known by then.
type tablePrinter struct {
	format
	w      *bufio.Writer
	names  []string
	held   [][]cell
	bytes  int
	widths []int // nil while rows are held back
}

type cell struct {
	text   string
	number bool // aligned to the right
}

func (p *tablePrinter) begin(cols []string) error {
	for _, c := range cols {
		p.names = append(p.names, visible(c))
	}
	return nil
}

func (p *tablePrinter) row(vals []facet.Value) error {
	cells := make([]cell, len(vals))
	for i, v := range vals {
		cells[i] = cell{visible(p.text(v)), v.Type == facet.Integer || v.Type == facet.Float}
		p.bytes += len(cells[i].text) + 16
	}
	if p.widths != nil {
		return p.line(cells)
	}
	p.held = append(p.held, cells)
	if len(p.held) >= tableRows || p.bytes >= tableBytes {
		return p.release()
	}
	return nil
}

func (p *tablePrinter) end() error {
	if p.widths == nil {
		return p.release()
	}
	return nil
}

// release fixes the widths and prints what was held back.
func (p *tablePrinter) release() error {
	p.widths = make([]int, len(p.names))
	if p.headers {
		for i, n := range p.names {
			p.widths[i] = runewidth.StringWidth(n)
		}
	}
	for _, cells := range p.held {
		for i, c := range cells {
			p.widths[i] = max(p.widths[i], runewidth.StringWidth(c.text))
		}
	}
	if p.width > 0 {
		shrink(p.widths, p.width-3*len(p.widths)+1)
	}
	if p.headers {
		cells := make([]cell, len(p.names))
		for i, n := range p.names {
			cells[i] = cell{text: n}
		}
		p.line(cells)
		for i, w := range p.widths {
			if i > 0 {
				p.w.WriteString("┼")
			}
			p.w.WriteString(strings.Repeat("─", w+2))
		}
		p.w.WriteByte('\n')
	}
	for _, cells := range p.held {
		if err := p.line(cells); err != nil {
			return err
		}
	}
	p.held = nil
	return nil
}

func (p *tablePrinter) line(cells []cell) error {
	for i, c := range cells {
		if i > 0 {
			p.w.WriteString("│")
		}
		text := c.text
		w := runewidth.StringWidth(text)
		if p.width > 0 && w > p.widths[i] {
			text = runewidth.Truncate(text, p.widths[i], "…")
			w = runewidth.StringWidth(text)
		}
		pad := strings.Repeat(" ", max(0, p.widths[i]-w))
		p.w.WriteByte(' ')
		switch {
		case c.number:
			p.w.WriteString(pad + text)
		case i == len(cells)-1:
			p.w.WriteString(text) // no spaces at the end of a line
			continue
		default:
			p.w.WriteString(text + pad)
		}
		if i < len(cells)-1 {
			p.w.WriteByte(' ')
		}
	}
	return p.w.WriteByte('\n')
}

// shrink cuts the widest columns until all of them fit into total, or none is
// wider than minColumn.
func shrink(widths []int, total int) {
	sum := 0
	for _, w := range widths {
		sum += w
	}
	for sum > total {
		widest, second := -1, minColumn
		for i, w := range widths {
			switch {
			case widest < 0 || w > widths[widest]:
				if widest >= 0 {
					second = max(second, widths[widest])
				}
				widest = i
			case w < widths[widest]:
				second = max(second, w)
			}
		}
		if widest < 0 || widths[widest] <= minColumn {
			return
		}
		// At least one, at most down to the next widest.
		cut := max(1, min(sum-total, widths[widest]-second))
		widths[widest] -= cut
		sum -= cut
	}
}
