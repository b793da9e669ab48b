-- Notes that a delivery of entries begins that nobody read from here.
--
-- KEYS  1 the stream  2 its meta hash  3 to 5, which are not read: those of an enqueue, so that a Redis Cluster whose keys
--       move gives neither of the two before the other
-- ARGV  1… stream ids
-- gives how many have a mark: others are gone, or another writer's, which has none before it is read

local marks, noted = redis.call('HMGET', KEYS[2], unpack(ARGV)), {}
for nth, mark in ipairs(marks) do
    local head, begun = string.match(mark or '', '^(.*:)(%d+)$')
    if head then
        noted[#noted + 1] = ARGV[nth]
        noted[#noted + 1] = head .. string.format('%.0f', tonumber(begun) + 1)
    end
end
if #noted > 0 then
    redis.call('HSET', KEYS[2], unpack(noted))
end
return #noted / 2
