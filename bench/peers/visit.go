package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// workload is one kind of load. 0 callers or keys are those of the settings.
type workload struct {
	name          string
	callers, keys int
	read          bool
}

// create is the workload that makes the keys, and comes before the others.
const createName = "create"

// workloads in the order they are run in each visit.
var workloads = []workload{
	{name: "write"},
	{name: "read", read: true},
	{name: "hot_write", keys: 1},
	{name: "write_one", callers: 1, keys: 1},
}

// visit is one round of one peer: it is started, loaded and thrown away.
type visit struct {
	settings
	peer     peer
	path     string // of its program
	dir      string
	round    int
	progress io.Writer

	running  *cluster
	disk     *diskCounter
	idle     float64 // bytes a second that the disk gets while nobody calls
	measures []measure
	shown    []shown
}

func (v *visit) run(ctx context.Context) (err error) {
	name := v.peer.about().Name
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(v.dir)
	fmt.Fprintf(v.progress, "round %d: starting %s\n", v.round, name)
	v.running, err = startCluster(ctx, v.peer, v.path, v.dir, v.settings)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() { err = errors.Join(err, v.running.stop()) }()
	v.shown = v.running.shown
	if v.disk, err = openDisk(v.dir); err != nil {
		return err
	}
	defer v.disk.close()
	if err := v.running.session.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := v.fill(ctx); err != nil {
		return err
	}
	for _, w := range workloads {
		m, err := v.measure(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		v.add(m)
	}
	return nil
}

func (v *visit) add(m measure) {
	m.Peer, m.Round = v.peer.about().Name, v.round
	m.settle(v.idle)
	v.measures = append(v.measures, m)
	fmt.Fprintf(v.progress, "round %d: %s %s %.0f/s, p50 %.2f ms, p99 %.2f ms\n", v.round, m.Peer, m.Workload,
		m.OpsPerSecond, float64(m.P50)/1e3, float64(m.P99)/1e3)
}

// fill makes the keys, which is a measurement where they are databases, and then
// leaves the servers alone for a while and looks at the disk.
func (v *visit) fill(ctx context.Context) error {
	databases, n := v.peer.about().Databases, v.Keys
	if databases {
		n = max(v.Create, v.Keys)
	}
	values := v.values()
	before, known := v.running.resident()
	m, err := v.watch(ctx, func(ctx context.Context) (measure, error) {
		return run(ctx, v.Callers, &pace{calls: int64(n)}, func(ctx context.Context, caller, i int, _ *rand.Rand) error {
			return v.running.session.create(ctx, i, values[caller])
		})
	})
	if err == nil && m.Errors > 0 {
		err = errors.New(m.FirstError)
	}
	if err != nil {
		return fmt.Errorf("first writes: %w", err)
	}
	if v.idle, err = v.disk.idle(ctx, v.Idle); err != nil {
		return err
	}
	if !databases {
		return nil
	}
	m.Workload = createName
	if after, ok := v.running.resident(); ok && known {
		per := float64(after-before) / float64(n)
		m.Resident, m.PerKey = &after, &per
	}
	v.add(m)
	return nil
}

// measure runs a workload for its time, after a while that does not count.
func (v *visit) measure(ctx context.Context, w workload) (measure, error) {
	if w.callers == 0 {
		w.callers = v.Callers
	}
	if w.keys == 0 {
		w.keys = v.Keys
	}
	do := v.reads(w.keys)
	if !w.read {
		do = v.writes(w.keys)
	}
	if _, err := run(ctx, w.callers, lasting(v.Duration/warmShare), do); err != nil {
		return measure{}, err
	}
	m, err := v.watch(ctx, func(ctx context.Context) (measure, error) { return run(ctx, w.callers, lasting(v.Duration), do) })
	m.Workload = w.name
	if n, ok := v.running.resident(); ok {
		m.Resident = &n
	}
	return m, err
}

// watch looks at what a measurement costs. What the load has left in the page cache
// when it ends is written to the disk before the disk's counter is read: it belongs
// to the load, and not to what comes next.
func (v *visit) watch(ctx context.Context, load func(context.Context) (measure, error)) (measure, error) {
	if err := v.disk.sync(); err != nil {
		return measure{}, err
	}
	loaded := loadAverage()
	disk, err := v.disk.written()
	if err != nil {
		return measure{}, err
	}
	began := time.Now()
	servers, err := v.running.processor()
	if err != nil {
		return measure{}, err
	}
	own, sent := ownProcessor(), v.running.sent(ctx)
	m, err := load(ctx)
	if err != nil {
		return m, err
	}
	m.Load = loaded
	m.clientCPU = ownProcessor() - own
	after, err := v.running.processor()
	if err != nil {
		return m, err
	}
	if v.peer.about().Processes > 0 {
		d := after - servers
		m.serverCPU = &d
	}
	if now := v.running.sent(ctx); sent != nil && now != nil {
		n := *now - *sent
		m.sent = &n
	}
	if err := v.disk.sync(); err != nil {
		return m, err
	}
	end, err := v.disk.written()
	if err != nil {
		return m, err
	}
	if disk != nil && end != nil {
		n := *end - *disk
		m.disk, m.watched = &n, time.Since(began)
	}
	return m, nil
}

// values gives every caller a value of its own.
func (v *visit) values() [][]byte {
	all := make([][]byte, v.Callers)
	for c := range all {
		all[c] = randomText(rand.New(rand.NewPCG(uint64(c), 2)), v.Size)
	}
	return all
}

// writes replaces the values of some keys. A caller changes its value with each call.
func (v *visit) writes(keys int) call {
	values := v.values()
	return func(ctx context.Context, caller, _ int, rng *rand.Rand) error {
		x := values[caller]
		x[rng.IntN(len(x))] = alphabet[rng.IntN(len(alphabet))]
		return v.running.session.write(ctx, rng.IntN(keys), x)
	}
}

func (v *visit) reads(keys int) call {
	return func(ctx context.Context, _, _ int, rng *rand.Rand) error {
		key := rng.IntN(keys)
		n, err := v.running.session.read(ctx, key)
		if err == nil && n != v.Size {
			err = fmt.Errorf("key %d has a value of %d bytes, want %d", key, n, v.Size)
		}
		return err
	}
}
