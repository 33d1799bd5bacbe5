package lease

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBootTimeCountsSuspend: time spent in suspend counts (R37). A time namespace whose
// boot clock is an hour ahead of its monotonic one looks like a machine that slept for
// an hour.
func TestBootTimeCountsSuspend(t *testing.T) {
	const child, slept = "LEASE_TEST_BOOTTIME", time.Hour
	if os.Getenv(child) != "" {
		fmt.Println("boot time:", int64(BootTime()))
		return
	}
	cmd := exec.Command("unshare", "--map-root-user", "--time", "--boottime", strconv.Itoa(int(slept/time.Second)),
		os.Args[0], "-test.run", "^TestBootTimeCountsSuspend$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	_, said, ok := strings.Cut(string(out), "boot time: ")
	if !ok {
		t.Skipf("no time namespace can be made here: %v: %s", err, out)
	}
	line, _, _ := strings.Cut(said, "\n")
	got, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	if ahead := time.Duration(got - ts.Nano()); ahead < slept-30*time.Minute {
		t.Errorf("after an hour of suspend the clock of leases is %v ahead", ahead)
	}
}
