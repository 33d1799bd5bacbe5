package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A log entry holds a batch of commands. Numbers are big-endian:
//
//	offset size
//	 0      1   version, 1
//	 1      1   zero
//	 2      2   number of commands, 1 to 512
//	 4      4   CRC-32C of all that follows
//	 8      …   for each command 4 bytes length and the command
const (
	entryVersion = 1
	entryHeadLen = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendEntry appends the entry for a batch.
func appendEntry(dst []byte, commands [][]byte) []byte {
	from := len(dst)
	dst = append(dst, entryVersion, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(commands)))
	dst = append(dst, 0, 0, 0, 0)
	for _, c := range commands {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(c)))
		dst = append(dst, c...)
	}
	binary.BigEndian.PutUint32(dst[from+4:], crc32.Checksum(dst[from+entryHeadLen:], castagnoli))
	return dst
}

// decodeEntry reads an entry. The commands alias src.
func decodeEntry(src []byte) ([][]byte, error) {
	switch {
	case len(src) < entryHeadLen || len(src) > entryHeadLen+MaxEntryBytes:
		return nil, fmt.Errorf("decode log entry: %d bytes, limit %d", len(src), entryHeadLen+MaxEntryBytes)
	case src[0] != entryVersion || src[1] != 0:
		return nil, fmt.Errorf("decode log entry: version %d, this program knows %d; use the version that wrote it", src[0], entryVersion)
	}
	n := int(binary.BigEndian.Uint16(src[2:]))
	if n == 0 || n > MaxBatch {
		return nil, fmt.Errorf("decode log entry: %d commands, limit %d", n, MaxBatch)
	}
	rest := src[entryHeadLen:]
	if sum, want := crc32.Checksum(rest, castagnoli), binary.BigEndian.Uint32(src[4:]); sum != want {
		return nil, fmt.Errorf("decode log entry: checksum %08x, want %08x", sum, want)
	}
	commands := make([][]byte, n)
	for i := range commands {
		if len(rest) < 4 {
			return nil, errors.New("decode log entry: cut short")
		}
		size := binary.BigEndian.Uint32(rest)
		rest = rest[4:]
		if size > MaxCommandLen || int(size) > len(rest) {
			return nil, fmt.Errorf("decode log entry: command of %d bytes, limit %d, %d left", size, MaxCommandLen, len(rest))
		}
		commands[i], rest = rest[:size:size], rest[size:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("decode log entry: %d bytes too many", len(rest))
	}
	return commands, nil
}
