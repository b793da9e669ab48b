-- Puts notifications into a mailbox, in their order, and the oldest out of it if it is full.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)
-- ARGV  1 scoped key  2 max entries  3 now, ms  4 TTL, s  5 TTL of the meta hash, s
--       6 when the first of them expires, ms  7… for each: stored JSON, mark
-- gives dropped, expired, and the stream id of each

-- Every key is read before anything is written, so that one of a wrong type changes nothing.
local before = redis.call('XLEN', KEYS[1])
local known = tonumber(redis.call('HGET', KEYS[2], 'depth') or 0) or 0
redis.call('HLEN', KEYS[4])

local max, now = tonumber(ARGV[2]), tonumber(ARGV[3]) * 1000000
local count = (#ARGV - 6) / 2
local dropped, expired = 0, 0
-- What is expired by now is not dropped.
local function leave(mark)
    local at = mark and tonumber(string.match(mark, ':(%d+):%d+$'))
    if at and at <= now then
        expired = expired + 1
    else
        dropped = dropped + 1
    end
end
local excess = math.min(before + count - max, before)
local gone, from = {}, '-'
while #gone < excess do
    -- A few at a time: their texts come with them.
    local want = math.min(excess - #gone, 8)
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)) do
        gone[#gone + 1] = entry[1]
        leave(redis.call('HGET', KEYS[2], entry[1]))
        from = '(' .. entry[1]
    end
end

-- The first write: what a full server refuses, and where this key shows its type. Then nothing has happened.
redis.call('ZADD', KEYS[3], 'LT', ARGV[6], ARGV[1])
if before == 0 and known > 0 then
    -- Marks of entries that are gone.
    redis.call('DEL', KEYS[2])
end
local depth = math.min(before + count, max)
local answer, fields = {0, 0}, {'depth', depth}
for at = 1, count do
    local data, mark = ARGV[5 + 2 * at], ARGV[6 + 2 * at]
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', max, '*', 'data', data)
    answer[2 + at] = id
    if at <= count - max then
        -- More at once than the mailbox holds.
        leave(mark)
    else
        fields[#fields + 1] = id
        fields[#fields + 1] = mark
    end
end
-- `unpack` has room for some thousands.
for at = 1, #fields, 1000 do
    redis.call('HSET', KEYS[2], unpack(fields, at, math.min(at + 999, #fields)))
end
for at = 1, #gone, 1000 do
    redis.call('HDEL', KEYS[2], unpack(gone, at, math.min(at + 999, #gone)))
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[5])

-- Entries that went with their stream, or by another hand: the TTL took them.
expired = expired + math.max(known - before, 0)
redis.call('HINCRBY', KEYS[4], 'enqueued', count)
if depth ~= known then
    redis.call('HINCRBY', KEYS[4], 'depth', depth - known)
end
if dropped > 0 then
    redis.call('HINCRBY', KEYS[4], 'dropped', dropped)
end
if expired > 0 then
    redis.call('HINCRBY', KEYS[4], 'expired', expired)
end
answer[1], answer[2] = dropped, expired
return answer
