package bench

import (
	"fmt"
	"math"
	"strings"
)

// The size of a plot in user units, and of the margins around its area.
const (
	plotWidth, plotHeight = 460, 240
	plotLeft, plotRight   = 58, 30
	plotTop, plotBottom   = 10, 34
)

// curve is one line of a plot: points in the units of its axes.
type curve struct {
	Class string // of the style sheet: which run
	Name  string
	x, y  []float64
}

// plot is a drawing of curves over two axes, ready for the template.
type plot struct {
	Title          string
	XName          string
	XTicks, YTicks []tick
	Curves         []drawn
	Width, Height  int
	// The corners of the area inside the axes.
	X0, X1, Y0, Y1 float64
}

type tick struct {
	At    float64
	Label string
}

type drawn struct{ Class, Name, Points string }

// axis maps values to a line between two ends.
type axis struct {
	low, high float64
	from, to  float64
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(max(v, a.low)), math.Log10(low), math.Log10(high)
	}
	return math.Round(10*(a.from+(v-low)/(high-low)*(a.to-a.from))) / 10
}

// linear makes an axis from 0 to a round number, and its ticks.
func linear(high, from, to float64, label func(float64) string) (axis, []tick) {
	if !(high > 0) || math.IsInf(high, 0) {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1, 2} {
		if high/(step*f) <= 6 {
			step *= f
			break
		}
	}
	n := math.Ceil(high/step - 1e-9)
	a := axis{low: 0, high: n * step, from: from, to: to}
	var ticks []tick
	for i := 0.0; i <= n; i++ {
		ticks = append(ticks, tick{a.at(i * step), label(i * step)})
	}
	return a, ticks
}

// decades makes a logarithmic axis over whole decades, and its ticks.
func decades(low, high, from, to float64, label func(float64) string) (axis, []tick) {
	low, high = max(low, 1), max(high, 1)
	l, h := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if h <= l {
		h = l + 1
	}
	a := axis{low: math.Pow(10, l), high: math.Pow(10, h), from: from, to: to, log: true}
	var ticks []tick
	for e := l; e <= h; e++ {
		ticks = append(ticks, tick{a.at(math.Pow(10, e)), label(math.Pow(10, e))})
	}
	return a, ticks
}

func newPlot(title, x string) *plot {
	return &plot{Title: title, XName: x, Width: plotWidth, Height: plotHeight,
		X0: plotLeft, X1: plotWidth - plotRight, Y0: plotHeight - plotBottom, Y1: plotTop}
}

func (p *plot) draw(curves []curve, x, y axis) *plot {
	for _, c := range curves {
		var b strings.Builder
		if len(c.x) == 1 { // a line from a point to itself is a dot
			fmt.Fprintf(&b, "%g,%g ", x.at(c.x[0]), y.at(c.y[0]))
		}
		for i := range c.x {
			fmt.Fprintf(&b, "%g,%g ", x.at(c.x[i]), y.at(c.y[i]))
		}
		p.Curves = append(p.Curves, drawn{c.Class, c.Name, strings.TrimSpace(b.String())})
	}
	return p
}

// extent gives the least and the greatest of what is drawn; ok is false if nothing is.
func extent(curves []curve, of func(curve) []float64) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, v := range of(c) {
			low, high, ok = min(low, v), max(high, v), true
		}
	}
	return low, high, ok
}

func xs(c curve) []float64 { return c.x }
func ys(c curve) []float64 { return c.y }

func timeLabel(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%gs", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%gms", us/1e3)
	}
	return fmt.Sprintf("%gµs", us)
}

func plainLabel(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e4)/100)
	case v >= 1e3:
		return fmt.Sprintf("%gk", math.Round(v/10)/100)
	}
	return fmt.Sprintf("%g", math.Round(v*1000)/1000)
}

// throughput draws operations a second over time.
func throughput(curves []curve) *plot {
	_, tmax, ok := extent(curves, xs)
	_, vmax, _ := extent(curves, ys)
	if !ok {
		return nil
	}
	p := newPlot("operations a second over time", "seconds measured")
	x, xt := linear(tmax, p.X0, p.X1, plainLabel)
	y, yt := linear(vmax, p.Y0, p.Y1, plainLabel)
	p.XTicks, p.YTicks = xt, yt
	return p.draw(curves, x, y)
}

// overTime draws latencies over time.
func overTime(curves []curve) *plot {
	_, tmax, ok := extent(curves, xs)
	low, high, _ := extent(curves, ys)
	if !ok {
		return nil
	}
	p := newPlot("latency over time: p50, p99 broken", "seconds measured")
	x, xt := linear(tmax, p.X0, p.X1, plainLabel)
	y, yt := decades(low, high, p.Y0, p.Y1, timeLabel)
	p.XTicks, p.YTicks = xt, yt
	return p.draw(curves, x, y)
}

// byPercentile draws latency over percentiles. The axis is that of 1/(1-p), so that
// the tail has room: each nine takes as much as the one before. The maximum has no
// place on it and is left to the table.
func byPercentile(curves []curve) *plot {
	_, nines, ok := extent(curves, xs)
	low, high, _ := extent(curves, ys)
	if !ok {
		return nil
	}
	p := newPlot("latency by percentile", "percentile")
	x, xt := decades(1, nines, p.X0, p.X1, func(v float64) string { return fmt.Sprintf("p%g", math.Round(1e5*(100-100/v))/1e5) })
	y, yt := decades(low, high, p.Y0, p.Y1, timeLabel)
	p.XTicks, p.YTicks = xt, yt
	return p.draw(curves, x, y)
}
