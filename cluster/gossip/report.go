package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
)

// AlarmKind says what an alarm is about.
type AlarmKind uint8

const (
	// AlarmStoreConflict: another store claims a node id; the known one is kept
	// (rule R3). Two nodes have one name, or a disk was wiped and its node came
	// back elsewhere.
	AlarmStoreConflict AlarmKind = 1

	// AlarmAddressConflict: one node and store at two addresses. The node moved,
	// or a copy of its disk was started too.
	AlarmAddressConflict AlarmKind = 2

	// AlarmReplaced: a node id went over to another store, because the known one
	// is gone.
	AlarmReplaced AlarmKind = 3

	// AlarmForeignCluster: a member of another cluster was refused.
	AlarmForeignCluster AlarmKind = 4

	// AlarmForeignLabel: datagrams or streams with another label arrive.
	AlarmForeignLabel AlarmKind = 5

	// AlarmWrongKey: what arrives cannot be read with any key of the ring.
	AlarmWrongKey AlarmKind = 6

	// AlarmBadMeta: a member was refused because its meta cannot be read.
	AlarmBadMeta AlarmKind = 7

	// AlarmFull: a member was refused because there are too many.
	AlarmFull AlarmKind = 8
)

var alarmNames = [...]string{"", "store conflict", "address conflict", "store replaced", "foreign cluster",
	"foreign label", "wrong key", "bad meta", "too many members"}

func (k AlarmKind) String() string {
	if k > 0 && int(k) < len(alarmNames) {
		return alarmNames[k]
	}
	return fmt.Sprintf("alarm_%d", uint8(k))
}

// Alarm is something an operator should know. Fields that do not apply are zero.
// The same alarm comes at most once a minute.
type Alarm struct {
	Kind      AlarmKind
	Node      cluster.NodeID
	Known     cluster.StoreID // the store kept, or replaced
	Claimed   cluster.StoreID // the other store
	KnownAddr netip.AddrPort
	Addr      netip.AddrPort // where the other one is
	Cluster   cluster.ID     // the cluster it belongs to
	Detail    string
}

// The library and this package write at three levels; what the library calls an
// error (a probe that failed) is everyday life here.
const (
	levelDebug = slog.LevelDebug
	levelInfo  = slog.LevelInfo
	levelWarn  = slog.LevelWarn
)

type reportItem struct {
	level slog.Level
	text  string
	args  []any
	alarm *Alarm
}

// reporter takes log lines and alarms from anywhere, also from under locks, and
// hands them on from one goroutine. It never blocks: what does not fit its queue
// is dropped and counted.
type reporter struct {
	log   *slog.Logger
	raise func(Alarm)
	queue chan reportItem
	done  chan struct{} // closed to stop
	wg    sync.WaitGroup

	dropped     atomic.Uint64
	alarms      atomic.Uint64
	undecrypted atomic.Uint64

	mu     sync.Mutex
	last   map[Alarm]time.Time // when an alarm was raised; guarded by mu
	second time.Time           // of lines; guarded by mu
	lines  int                 // the library wrote in that second; guarded by mu
}

func newReporter(log *slog.Logger, raise func(Alarm)) *reporter {
	r := &reporter{
		log: log, raise: raise,
		queue: make(chan reportItem, reportQueue),
		done:  make(chan struct{}),
		last:  make(map[Alarm]time.Time),
	}
	r.wg.Go(r.run)
	return r
}

// close hands on what is queued, and stops. Later reports are dropped.
func (r *reporter) close() {
	close(r.done)
	r.wg.Wait()
}

func (r *reporter) run() {
	for {
		select {
		case it := <-r.queue:
			r.hand(it)
			continue
		case <-r.done:
		}
		for {
			select {
			case it := <-r.queue:
				r.hand(it)
			default:
				return
			}
		}
	}
}

func (r *reporter) hand(it reportItem) {
	r.log.Log(context.Background(), it.level, it.text, it.args...)
	if it.alarm != nil && r.raise != nil {
		r.raise(*it.alarm)
	}
}

func (r *reporter) line(level slog.Level, text string, args ...any) {
	if r.log.Enabled(context.Background(), level) {
		r.put(reportItem{level: level, text: text, args: args})
	}
}

func (r *reporter) put(it reportItem) {
	select {
	case r.queue <- it:
	default:
		r.dropped.Add(1)
	}
}

// alarm raises a, unless the same one was raised a moment ago.
func (r *reporter) alarm(a Alarm) {
	key := a
	key.Detail = ""
	if a.Kind == AlarmForeignLabel {
		// Anybody can send these, from any address: one entry for all of them,
		// or they would push out the others.
		key.Addr = netip.AddrPort{}
	}
	now := time.Now()
	r.mu.Lock()
	again := false
	if t, ok := r.last[key]; ok && now.Sub(t) < alarmRepeat {
		again = true
	} else {
		if len(r.last) >= maxAlarmKeys {
			for k, t := range r.last {
				if now.Sub(t) >= alarmRepeat {
					delete(r.last, k)
				}
			}
		}
		if again = len(r.last) >= maxAlarmKeys; !again {
			r.last[key] = now
		}
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.alarms.Add(1)
	args := []any{"kind", a.Kind.String()}
	for _, f := range [...]struct {
		name string
		zero bool
		v    any
	}{
		{"node", a.Node.IsZero(), a.Node}, {"known_store", a.Known.IsZero(), a.Known}, {"store", a.Claimed.IsZero(), a.Claimed},
		{"known_addr", !a.KnownAddr.IsValid(), a.KnownAddr}, {"addr", !a.Addr.IsValid(), a.Addr},
		{"cluster", a.Cluster.IsZero(), a.Cluster}, {"detail", a.Detail == "", a.Detail},
	} {
		if !f.zero {
			args = append(args, f.name, f.v)
		}
	}
	r.put(reportItem{level: levelWarn, text: "gossip alarm", args: args, alarm: &a})
}

// The only signs the library gives of a message that no key opens, and of a
// stream with another label. TestForeigners fails when it words them differently.
var (
	noKeyFits    = []byte("no installed keys could decrypt")
	foreignLabel = []byte("unacceptable label")
)

// Write takes a line of the library's log, "[LEVEL] memberlist: text".
func (r *reporter) Write(b []byte) (int, error) {
	if bytes.Contains(b, noKeyFits) {
		r.undecrypted.Add(1)
		r.alarm(Alarm{Kind: AlarmWrongKey})
	}
	if bytes.Contains(b, foreignLabel) {
		text := bytes.TrimSpace(b)
		r.alarm(Alarm{Kind: AlarmForeignLabel, Detail: string(text[:min(len(text), 512)])})
	}
	if !r.log.Enabled(context.Background(), levelDebug) || !r.allowLine() {
		return len(b), nil
	}
	text := bytes.TrimSpace(b)
	if i := bytes.Index(text, []byte("memberlist: ")); i >= 0 && i < 16 {
		text = text[i+len("memberlist: "):]
	}
	r.line(levelDebug, "memberlist", "line", string(text[:min(len(text), 512)]))
	return len(b), nil
}

func (r *reporter) allowLine() bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.second) >= time.Second {
		r.second, r.lines = now, 0
	}
	r.lines++
	return r.lines <= maxLinesPerSecond
}
