-- What is to be done after entries left a mailbox. KEYS and ARGV[1] as below; `known` is the depth that was last
-- noted, `due` when to look at the mailbox again, or nil to leave that as it is.
local function settle(known, due, kept)
    local depth = redis.call('XLEN', KEYS[1])
    if depth > 0 then
        redis.call('HSET', KEYS[2], 'depth', depth)
        redis.call('EXPIRE', KEYS[2], math.max(kept, redis.call('TTL', KEYS[2])))
        if due then
            redis.call('ZADD', KEYS[3], string.format('%.0f', due), ARGV[1])
        end
        redis.call('HINCRBY', KEYS[4], 'depth', depth - known)
        return depth
    end
    redis.call('DEL', KEYS[1])
    -- Epoch and seq outlive the entries, their marks do not.
    local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
    redis.call('DEL', KEYS[2])
    if head[1] then
        redis.call('HSET', KEYS[2], 'epoch', head[1], 'seq', head[2] or 0, 'depth', 0)
        redis.call('EXPIRE', KEYS[2], kept)
    end
    redis.call('ZREM', KEYS[3], ARGV[1])
    if redis.call('EXISTS', KEYS[3]) == 0 then
        -- No mailbox is left: whatever the figure says, this is so.
        redis.call('HSET', KEYS[4], 'depth', 0)
    else
        -- Not `-known`, which is `-0` for 0.
        redis.call('HINCRBY', KEYS[4], 'depth', 0 - known)
    end
    return 0
end

