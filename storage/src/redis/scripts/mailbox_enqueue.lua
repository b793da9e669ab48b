-- Puts one notification into a mailbox, and the oldest out of it if it is full.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)
-- ARGV  1 scoped key  2 stored JSON  3 max entries  4 now, ms  5 expires, ms  6 TTL, s  7 TTL of the meta hash, s
--       8 epoch, should there be none
-- gives stream id, epoch, seq, depth, dropped, expired

-- Every key is read before anything is written, so that one of a wrong type changes nothing.
local before = redis.call('XLEN', KEYS[1])
local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'depth')
redis.call('HLEN', KEYS[4])

local epoch = head[1] or ARGV[8]
local seq = (tonumber(head[2]) or 0) + 1
local known = tonumber(head[3]) or 0
local max = tonumber(ARGV[3])
local now = tonumber(ARGV[4])
local excess = math.max(before + 1 - max, 0)
local oldest = {}
if excess == 1 then
    oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
end

-- The first write: what a full server refuses, and where this key shows its type. Then nothing has happened.
redis.call('ZADD', KEYS[3], 'LT', ARGV[5], ARGV[1])
local id = redis.call('XADD', KEYS[1], 'MAXLEN', max, '*', 'data', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[6])

-- Entries that went with their stream, or by another hand: the TTL took them.
local expired = math.max(known - before, 0)
local dropped = 0
local function leave(field, mark)
    local at = mark and tonumber(string.match(mark, ':(%d+)$'))
    if at and at <= now then
        expired = expired + 1
    else
        dropped = dropped + 1
    end
    if mark then
        redis.call('HDEL', KEYS[2], field)
    end
end
if before == 0 and known > 0 then
    -- Marks of entries that are gone.
    redis.call('DEL', KEYS[2])
elseif excess == 1 then
    leave(oldest[1][1], redis.call('HGET', KEYS[2], oldest[1][1]))
elseif excess > 1 then
    -- The bound was lowered, or another writer does not keep it: seldom, so all marks are looked at.
    local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
    local first_ms, first_seq = string.match(first, '^(%d+)-(%d+)$')
    first_ms, first_seq = tonumber(first_ms), tonumber(first_seq)
    local marks = redis.call('HGETALL', KEYS[2])
    local marked = 0
    for at = 1, #marks, 2 do
        local ms, seq = string.match(marks[at], '^(%d+)-(%d+)$')
        if ms then
            ms, seq = tonumber(ms), tonumber(seq)
            if ms < first_ms or (ms == first_ms and seq < first_seq) then
                marked = marked + 1
                leave(marks[at], marks[at + 1])
            end
        end
    end
    dropped = dropped + math.max(excess - marked, 0)
end

local depth = math.min(before + 1, max)
local text = string.format('%.0f', seq)
redis.call('HSET', KEYS[2], 'epoch', epoch, 'seq', text, 'depth', depth, id, text .. ':' .. ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[7])

if depth ~= known then
    redis.call('HINCRBY', KEYS[4], 'depth', depth - known)
end
redis.call('HINCRBY', KEYS[4], 'enqueued', 1)
if dropped > 0 then
    redis.call('HINCRBY', KEYS[4], 'dropped', dropped)
end
if expired > 0 then
    redis.call('HINCRBY', KEYS[4], 'expired', expired)
end
return {id, epoch, seq, depth, dropped, expired}
