package httpjson

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadBody(t *testing.T) {
	budget := &Budget{Limit: 1 << 20}
	read := func(body string, limit int64) (string, error) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		b, err := ReadBody(httptest.NewRecorder(), r, limit, budget, "acme")
		if err != nil {
			return "", err
		}
		defer b.Close()
		if budget.Used() < int64(len(body)) {
			t.Errorf("%d bytes held, %d counted", len(body), budget.Used())
		}
		return string(b.Bytes), nil
	}
	for _, n := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, 300_000} {
		body := strings.Repeat("x", n)
		if got, err := read(body, 400_000); err != nil || got != body {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := read(strings.Repeat("x", 1001), 1000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("announced too large: %v", err)
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 100_001)))
	r.ContentLength = -1
	if _, err := ReadBody(httptest.NewRecorder(), r, 100_000, budget, "acme"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large, not announced: %v", err)
	}
	if _, err := read(strings.Repeat("x", 2<<20), 4<<20); !errors.Is(err, ErrBusy) {
		t.Errorf("over the budget: %v", err)
	}
	if budget.Used() != 0 {
		t.Errorf("%d bytes are still counted", budget.Used())
	}
}

// TestBudgetIsShared: one holder has half at most, and what he leaves is there for others.
func TestBudgetIsShared(t *testing.T) {
	b := &Budget{Limit: 1 << 20}
	taken := 0
	for b.take("noisy", 1<<10) {
		taken++
	}
	if taken < 500 || taken > 512 {
		t.Errorf("one holder has %d of 1024 KiB", taken)
	}
	for _, who := range []string{"a", "b", "c", "d"} {
		if !b.take(who, 16<<10) {
			t.Errorf("%s gets no 16 KiB beside one who has %d KiB", who, taken)
		}
		b.give(who, 16<<10)
	}
	b.give("noisy", int64(taken)<<10)
	if b.Used() != 0 || len(b.by) != 0 {
		t.Errorf("%d bytes and %d holders are left", b.Used(), len(b.by))
	}
}

// TestPace: a body that drips is given up, one that comes at a fair rate is not, however
// long it is, and the time this side takes does not count.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var drip pace
		late := 0
		for range 10 {
			end := drip.begin()
			time.Sleep(29 * time.Second)
			if time.Now().After(end) {
				late++
			}
			drip.end(1)
		}
		if late != 9 {
			t.Errorf("a byte in 29 s: late %d of 10 times", late)
		}
		var fair pace
		for range 1000 {
			end := fair.begin()
			time.Sleep(10 * time.Second)
			if time.Now().After(end) {
				t.Fatalf("late after %d bytes", fair.bytes)
			}
			fair.end(20 << 10)
			time.Sleep(time.Minute) // of ours
		}
	})
}
