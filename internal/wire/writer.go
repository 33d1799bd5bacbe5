package wire

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// writeLoop owns the socket's write side.
func (c *Conn) writeLoop() {
	defer c.wgW.Done()
	var batch []byte // what the last round wrote, used again
	var deadline time.Time
	for {
		batch = c.gather(batch)
		if batch == nil {
			return
		}
		for rest := batch; len(rest) > 0 && !c.over(); { // gather ends the loop
			if now := time.Now(); deadline.Sub(now) < c.cfg.WriteTimeout {
				deadline = now.Add(c.cfg.WriteTimeout + c.cfg.WriteTimeout/4)
				if err := c.nc.SetWriteDeadline(deadline); err != nil {
					c.Close(err)
				}
				if c.over() {
					break
				}
			}
			piece := rest[:min(len(rest), writePiece)]
			if _, err := c.nc.Write(piece); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					err = fmt.Errorf("%w: nothing taken for %v", ErrSlowReader, c.cfg.WriteTimeout)
				}
				c.Close(err)
			}
			rest = rest[len(piece):]
			c.wrote.Add(1)
		}
	}
}

// gather waits for frames and takes all there are, and a chunk of every stream.
// spare becomes the next queue. It returns nil when there is nothing more to
// write, and has then closed the streams.
func (c *Conn) gather(spare []byte) []byte {
	if cap(spare) > writeBufKeep {
		spare = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = 0
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	if !c.awaitFrames() {
		for _, s := range c.streams {
			s.Close()
		}
		c.streams, c.streaming = nil, 0
		return nil
	}
	batch := c.out
	c.out = spare[:0]
	if len(c.streams) > 0 {
		batch = c.takeChunks(batch)
	}
	c.writing = len(batch)
	return batch
}

// awaitFrames waits, with the lock released, until there is something to write.
// It is false when the connection is over.
func (c *Conn) awaitFrames() bool {
	for yielded := false; c.err == nil; {
		queued := len(c.out) > 0 || len(c.streams) > 0
		switch {
		case !queued && c.finish != nil:
			c.closeLocked(c.finish)
		case !queued || c.corked && len(c.out) < corkLen:
			c.parked = true
			c.mu.Unlock()
			select {
			case <-c.wake:
			case <-c.done:
			}
			c.mu.Lock()
			c.parked = false
		case !yielded && len(c.out) < corkLen:
			// Let everybody who is ready to run add a frame first.
			yielded = true
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		default:
			return true
		}
	}
	return false
}

// takeChunks appends the next chunk of every stream and drops those that end.
func (c *Conn) takeChunks(batch []byte) []byte {
	live := c.streams[:0]
	c.streaming = 0
	for _, s := range c.streams {
		var more bool
		if batch, more = s.Next(batch); !more {
			s.Close()
			continue
		}
		c.streaming += s.Pending()
		live = append(live, s)
	}
	clear(c.streams[len(live):])
	c.streams = live
	return batch
}
