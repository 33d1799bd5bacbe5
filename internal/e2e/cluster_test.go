//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

// patience bounds every wait for a cluster: far longer than anything takes on a
// loaded machine of two cores, and shorter than a test run. What takes longer hangs.
const patience = 2 * time.Minute

// pollEvery is how often another process is looked at.
const pollEvery = 10 * time.Millisecond

// nodePorts are the ports of a node: every node has an address of its own.
const apiPort, peerPort, gossipPort = "7400", "7401", "7402"

// cluster is some facetd processes that form a cluster. Its methods are for one
// goroutine at a time; workloads use clients only.
type cluster struct {
	t       testing.TB
	members []*member // in the order they were added; those removed stay
	wires   *wires    // nil: all nodes are on loopback
	shield  *shield   // nil: everything is plain, and nobody shows a token
	subnet  string    // the addresses of the nodes without the last number
	disks   *disks    // nil: no disk can break
	skewed  bool      // clocks can be wrong: the binaries know how
	binary  string    // what nodes that come run
	begun   time.Time
}

// member is one node through all its lives.
type member struct {
	c       *cluster
	name    string
	host    string
	dir     string // of its data
	founder bool
	args    []string // more flags
	binary  string   // what runs

	disk  *loopDisk     // under dir; nil: it cannot break
	clock *machineClock // nil: it is right
	feed  func() error  // ends that the process gets no processor time; nil: it does

	proc    *process // nil when it is not running
	stopped bool     // by SIGSTOP
	lives   int
	removed bool
	taken   int // changes of its files that it has told of, as the test has seen
	log     *os.File
}

// newCluster starts n nodes and waits until they are ready. The cluster is stopped
// with the test, which fails if a node had ended by itself.
func newCluster(t testing.TB, n int, onWires bool, args ...string) *cluster {
	t.Helper()
	return newClusterOf(t, n, onWires, func(int) []string { return args })
}

// newClusterOf is newCluster with flags of its own for each node, counted from 1.
func newClusterOf(t testing.TB, n int, onWires bool, args func(k int) []string) *cluster {
	t.Helper()
	c := prepare(t, n, onWires, args, nil)
	c.start()
	return c
}

// prepare is newClusterOf without a node being started. Equip gives it what else its
// nodes are to have.
func prepare(t testing.TB, n int, onWires bool, args func(k int) []string, equip func(*cluster)) *cluster {
	t.Helper()
	c := &cluster{t: t, binary: binary, begun: time.Now()}
	if onWires {
		c.wires = newWires(t)
		c.subnet = c.wires.subnet
	} else {
		c.subnet = loopbackNet(t, n)
	}
	if equip != nil {
		equip(c)
	}
	logs := t.TempDir()
	for i := range n {
		c.add(logs, i < n, args(i+1)...)
	}
	t.Cleanup(func() { c.close(logs) })
	return c
}

// start starts all nodes and waits until they are ready.
func (c *cluster) start() {
	c.t.Helper()
	for _, m := range c.members {
		m.launch()
	}
	for _, m := range c.members {
		m.ready()
	}
}

// loopbackNet finds loopback addresses of which nobody uses the ports. They are not
// those outgoing connections get, so that a node finds its ports free again after
// it was killed.
func loopbackNet(t testing.TB, n int) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs a loopback network of many addresses")
	}
	for range 100 {
		subnet := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(250), rand.IntN(256))
		l, err := net.Listen("tcp", net.JoinHostPort(subnet+"1", apiPort))
		if err != nil {
			continue
		}
		l.Close()
		return subnet
	}
	t.Fatal("no loopback addresses are free")
	return ""
}

// add makes a node that is not started yet.
func (c *cluster) add(logs string, founder bool, args ...string) *member {
	c.t.Helper()
	k := len(c.members) + 1
	m := &member{c: c, name: fmt.Sprintf("n%d", k), host: fmt.Sprintf("%s%d", c.subnet, k), founder: founder, args: args, binary: c.binary}
	home := c.t.TempDir()
	if c.disks != nil {
		m.disk = c.disks.add(m.name)
		home = m.disk.dir
	}
	m.dir = filepath.Join(home, m.name)
	if c.skewed {
		m.clock = newMachineClock(c.t, filepath.Join(logs, m.name+".clock"))
	}
	var err error
	if m.log, err = os.Create(filepath.Join(logs, m.name+".log")); err != nil {
		c.t.Fatal(err)
	}
	if c.wires != nil {
		c.wires.plug(k)
	}
	c.members = append(c.members, m)
	return m
}

// join adds a node to the running cluster, and waits until it is ready.
func (c *cluster) join(args ...string) *member {
	c.t.Helper()
	m := c.add(filepath.Dir(c.members[0].log.Name()), false, args...)
	m.launch()
	m.ready()
	return m
}

func (m *member) api() string { return net.JoinHostPort(m.host, apiPort) }

// url is where clients reach the node.
func (m *member) url() string {
	if m.c.shield != nil {
		return "https://" + m.api()
	}
	return "http://" + m.api()
}

// endpoints are the URLs of all that were not removed.
func (c *cluster) endpoints() (list []string) {
	for _, m := range c.members {
		if !m.removed {
			list = append(list, m.url())
		}
	}
	return list
}

// command is how the node is started, always with the same words but for founders
// that are gone.
func (m *member) command() *exec.Cmd {
	var seeds []string
	founders := 0
	for _, o := range m.c.members {
		if o.founder {
			founders++
		}
		if o.founder && !o.removed {
			seeds = append(seeds, net.JoinHostPort(o.host, gossipPort))
		}
	}
	if len(seeds) == 0 {
		for _, o := range m.c.alive() {
			seeds = append(seeds, net.JoinHostPort(o.host, gossipPort))
		}
	}
	args := []string{"serve", "--node-id", m.name, "--data", m.dir, "--stop-on-eof",
		"--listen", m.api(), "--peer-listen", net.JoinHostPort(m.host, peerPort), "--gossip-listen", net.JoinHostPort(m.host, gossipPort),
		"--join", strings.Join(seeds, ",")}
	if m.c.shield == nil {
		args = append(args, "--insecure")
	} else {
		args = append(args, m.c.shield.args(m)...)
	}
	if m.founder {
		args = append(args, "--bootstrap-expect", fmt.Sprint(founders))
	}
	args = append(args, m.args...)
	if m.c.wires != nil {
		args = append(args, "--allow-plaintext") // a network that only the test has
		// Not "ip netns exec": that gives it mounts of its own, too, which nobody ends.
		return exec.Command("nsenter", append([]string{"--net=/run/netns/" + m.c.wires.space(m.host), m.binary}, args...)...)
	}
	return exec.Command(m.binary, args...)
}

// launch starts the process.
func (m *member) launch() {
	m.c.t.Helper()
	if m.proc != nil {
		m.c.t.Fatalf("%s runs already", m.name)
	}
	m.lives++
	fmt.Fprintf(m.log, "---- life %d, %v after the cluster began\n", m.lives, time.Since(m.c.begun).Round(time.Millisecond))
	p := &process{addr: m.api(), done: make(chan error, 1)}
	p.cmd = m.command()
	p.cmd.Stdout, p.cmd.Stderr = m.log, m.log
	if m.clock != nil {
		p.cmd.Env = append(os.Environ(), "FACETD_FAULTS_CLOCK="+m.clock.path)
	}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		m.c.t.Fatal(err)
	}
	dieWithParent(p.cmd)
	started := make(chan error, 1)
	go func() {
		// The death of the thread that started a child counts as that of its parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if started <- err; err == nil {
			err = p.cmd.Wait()
			stdin.Close()
			p.done <- err
		}
	}()
	if err := <-started; err != nil {
		m.c.t.Fatal(err)
	}
	m.proc = p
}

// ready waits until the node says that it would serve requests.
func (m *member) ready() {
	m.c.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	if m.c.shield != nil {
		tr.TLSClientConfig = m.c.shield.tls
	}
	hc := &http.Client{Timeout: 5 * time.Second, Transport: tr}
	m.c.until(m.name+" is ready", func() error {
		if err := m.ended(); err != nil {
			m.c.t.Fatalf("%s ended: %v\n%s", m.name, err, m.tail())
		}
		res, err := hc.Get(m.url() + "/readyz")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", res.Status)
		}
		return nil
	})
}

// ended reports how the process ended by itself, nil while it runs.
func (m *member) ended() error {
	if m.proc == nil {
		return nil
	}
	select {
	case err := <-m.proc.done:
		m.proc.done <- err
		if err == nil {
			err = errors.New("exit status 0")
		}
		return err
	default:
		return nil
	}
}

// until asks again and again until ask gives no error: a poll of other processes,
// bounded by patience.
func (c *cluster) until(what string, ask func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %v until %s: %v", patience, what, err)
		}
		time.Sleep(pollEvery)
	}
}

// kill is kill -9; the process is gone when it returns.
func (m *member) kill() {
	if m.proc != nil {
		m.proc.kill()
		m.proc, m.stopped = nil, false
	}
}

// killAll kills all of them at the same moment.
func killAll(members []*member) {
	for _, m := range members {
		_ = m.proc.cmd.Process.Kill() // it may be gone already
	}
	for _, m := range members {
		m.kill()
	}
}

// term asks the process to stop, and waits for it.
func (m *member) term() {
	m.c.t.Helper()
	p := m.proc
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.c.t.Fatalf("stop %s: %v", m.name, err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			m.c.t.Errorf("%s stopped with: %v\n%s", m.name, err, m.tail())
		}
	case <-time.After(patience):
		m.c.t.Errorf("%s did not stop within %v\n%s", m.name, patience, m.tail())
		p.kill()
	}
	m.proc = nil
}

// pause is SIGSTOP, resume is SIGCONT.
func (m *member) pause() { m.signal(syscall.SIGSTOP); m.stopped = true }

func (m *member) resume() { m.signal(syscall.SIGCONT); m.stopped = false }

func (m *member) signal(s syscall.Signal) {
	m.c.t.Helper()
	if err := m.proc.cmd.Process.Signal(s); err != nil {
		m.c.t.Fatalf("%v to %s: %v", s, m.name, err)
	}
}

// wipe removes the data of a node that does not run.
func (m *member) wipe() {
	m.c.t.Helper()
	if err := os.RemoveAll(m.dir); err != nil {
		m.c.t.Fatal(err)
	}
}

// heal ends every fault: all nodes run, none is paused, all reach each other.
func (c *cluster) heal() {
	c.t.Helper()
	if c.wires != nil {
		c.wires.heal()
	}
	if c.disks != nil {
		c.disks.thaw()
	}
	for _, m := range c.alive() {
		if m.stopped {
			m.resume()
		}
	}
	for _, m := range c.members {
		m.mend()
	}
	for _, m := range c.members {
		if !m.removed && m.proc == nil {
			m.launch()
		}
	}
	for _, m := range c.alive() {
		m.ready()
	}
}

// mend ends what is wrong with the machine of the node.
func (m *member) mend() {
	m.c.t.Helper()
	if m.clock != nil {
		m.clock.steady()
	}
	if m.feed != nil {
		if err := m.feed(); err != nil {
			m.c.t.Log("give a process its time back: ", err)
		}
		m.feed = nil
	}
	if m.disk == nil {
		return
	}
	m.disk.empty()
	if m.disk.broken {
		m.kill() // the system that mounts it is started anew
		m.disk.repair()
	}
}

// alive are the nodes that run, paused ones too.
func (c *cluster) alive() (list []*member) {
	for _, m := range c.members {
		if m.proc != nil {
			list = append(list, m)
		}
	}
	return list
}

// named finds a node by its id.
func (c *cluster) named(id string) *member {
	for _, m := range c.members {
		if m.name == id {
			return m
		}
	}
	c.t.Fatalf("no node is called %q", id)
	return nil
}

// status asks whoever answers how the cluster is.
func (c *cluster) status(cl *client.Client) client.Cluster {
	c.t.Helper()
	var got client.Cluster
	c.until("somebody tells how the cluster is", func() (err error) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		got, err = cl.Cluster(ctx)
		return err
	})
	return got
}

// leader finds the node that leads placement.
func (c *cluster) leader(cl *client.Client) *member {
	c.t.Helper()
	var id string
	c.until("the cluster has a leader", func() error {
		if id = c.status(cl).Leader; id == "" {
			return errors.New("nobody leads")
		}
		return nil
	})
	return c.named(id)
}

// owner finds the node that owns the facet.
func (c *cluster) owner(cl *client.Client, name string) *member {
	c.t.Helper()
	f, err := cl.Facet(name)
	if err != nil {
		c.t.Fatal(err)
	}
	var id string
	c.until(name+" has an owner", func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		info, err := f.Stat(ctx)
		if id = info.Owner; err == nil && id == "" {
			err = errors.New("nobody owns it")
		}
		return err
	})
	return c.named(id)
}

// voting waits until so many nodes vote for the placement leader: a node that is new,
// or lost its disk, does after some seconds.
func (c *cluster) voting(cl *client.Client, want int) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d nodes vote", want), func() error {
		voters := 0
		for _, n := range c.status(cl).Nodes {
			if n.Voter {
				voters++
			}
		}
		if voters < want {
			return fmt.Errorf("%d do", voters)
		}
		return nil
	})
}

// operation runs an operation to its end.
func (c *cluster) operation(cl *client.Client, req client.OperationRequest) client.Operation {
	c.t.Helper()
	what := strings.TrimSpace(req.Kind + " " + req.Node)
	begin := time.Now()
	var op client.Operation
	c.until(what+" is done", func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		var err error
		if op.ID == "" {
			op, err = cl.StartOperation(ctx, req)
		} else if op, err = cl.Operation(ctx, op.ID); err != nil {
			op.ID = "" // another leader: begun again, which continues it
		}
		switch {
		case err != nil:
			return err
		case op.State == client.OperationFailed || op.State == client.OperationCanceled:
			c.t.Fatalf("%s %s: %s", what, op.State, op.Message)
		case op.State != client.OperationDone:
			return fmt.Errorf("%s, %d of %d, %d failed: %s", op.State, op.Done, op.Total, op.Failed, op.Message)
		}
		return nil
	})
	c.t.Logf("%s: %d facets in %v", what, op.Total, time.Since(begin).Round(time.Millisecond))
	return op
}

// tail is the end of what the node wrote.
func (m *member) tail() string {
	b, err := os.ReadFile(m.log.Name())
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	return string(b[max(0, len(b)-most):])
}

// close stops all nodes. When the test failed it shows what they wrote, or keeps
// everything where -chaos.keep says.
func (c *cluster) close(logs string) {
	if c.disks != nil {
		c.disks.thaw()
	}
	for _, m := range c.members {
		if err := m.ended(); err != nil {
			c.t.Errorf("%s ended by itself: %v", m.name, err)
		}
	}
	var wg sync.WaitGroup
	for _, m := range c.alive() {
		wg.Go(m.kill)
	}
	wg.Wait()
	for _, m := range c.members {
		m.log.Close()
		if c.t.Failed() && *chaosKeep == "" {
			c.t.Logf("%s (%d lives) said at last:\n%s", m.name, m.lives, m.tail())
		}
	}
	if c.t.Failed() && *chaosKeep != "" {
		to := filepath.Join(*chaosKeep, strings.ReplaceAll(c.t.Name(), "/", "-"))
		os.RemoveAll(to) // of an earlier run
		if err := os.CopyFS(filepath.Join(to, "logs"), os.DirFS(logs)); err != nil {
			c.t.Log(err)
		}
		for _, m := range c.members {
			if err := os.CopyFS(filepath.Join(to, m.name), os.DirFS(m.dir)); err != nil {
				c.t.Log(err)
			}
		}
		c.t.Logf("logs and data are in %s", to)
	}
}

// dial opens a client of the whole cluster. It is closed with the test.
func (c *cluster) dial(opt client.Options) *client.Client {
	c.t.Helper()
	var cl *client.Client
	c.until("a client connects", func() (err error) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		cl, err = client.Open(ctx, c.endpoints(), opt)
		return err
	})
	c.t.Cleanup(func() { cl.Close() })
	return cl
}
